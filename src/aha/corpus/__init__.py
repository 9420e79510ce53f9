"""Writes what a base model reads: puzzles, drills and products as text. No torch."""
