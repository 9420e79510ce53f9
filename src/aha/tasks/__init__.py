"""Tasks: problems with a truth, how to ask them, and exact grading. Imports no torch.

Decisions: docs/decisions/tasks.md
"""
