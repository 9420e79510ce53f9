"""Experiments over recipes: several runs, one question."""
