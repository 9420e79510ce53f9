"""Reinforcement learning: the step and its parts, the only loop, its watchers, a whole run.

Decisions: docs/decisions/training.md
"""
