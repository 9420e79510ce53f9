"""Training: reinforcement learning, pre-training, the loop and its watchers.

Decisions: docs/decisions/train.md
"""
