"""Examples that teach: from a teacher, graded, chosen, kept apart from tests; with their price.

Decisions: docs/decisions/distill.md
"""
