"""Training: reinforcement learning, pre-training, the loop and its watchers."""
