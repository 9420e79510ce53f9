"""Experiments over recipes: several runs, one question.

Decisions: docs/decisions/studies.md
"""
