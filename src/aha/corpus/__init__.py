"""Writes what a base model reads: puzzles, drills and products as text. No torch.

Decisions: docs/decisions/corpus.md
"""
