"""What a run costs: time, money and energy.

Decisions: docs/decisions/plan.md
"""
