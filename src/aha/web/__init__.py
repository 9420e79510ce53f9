"""The dashboard and the report. Reads run folders, never trains, needs no torch.

Decisions: docs/decisions/web.md
"""
