"""Ranks: processes that share the rows of each update, and how they are started.

Decisions: docs/decisions/dist.md
"""
