"""Measures this machine with a recipe's model, for the plan.

Decisions: docs/decisions/measure.md
"""
