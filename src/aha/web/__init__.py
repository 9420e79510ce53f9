"""The dashboard and the report: reads run folders, never trains, knows no torch.

Decisions: docs/decisions/web.md
"""
