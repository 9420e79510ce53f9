"""Generation: the Engine protocol and the engines that implement it.

Decisions: docs/decisions/rollout.md
"""
