"""Measures this machine with a recipe's model, for the plan."""
