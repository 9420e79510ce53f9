"""Trains a language model to reason with reinforcement learning, and lets you watch it happen."""

__version__ = "0.1.0"
