"""The behaviours in a completion: an exact detector of calculations, checks, going back, subgoals
and backward chaining in arithmetic, and an LLM judge to compare it with. No torch.

Decisions: docs/decisions/behaviors.md
"""
