"""Writes a trained model for other programs, with its model card.

Decisions: docs/decisions/export.md
"""
