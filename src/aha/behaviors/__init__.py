"""What a completion does: an exact detector of calculations, checks, going back, subgoals and
backward chaining in arithmetic traces. Imports no torch and no other room but core.

Decisions: docs/decisions/behaviors.md
"""
