"""Generation: the Engine protocol and the engines behind it.

Decisions: docs/decisions/rollout.md
"""
