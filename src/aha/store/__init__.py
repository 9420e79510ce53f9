"""The run folder: every file that a run leaves, and the only record of it.

Decisions: docs/decisions/store.md
"""
