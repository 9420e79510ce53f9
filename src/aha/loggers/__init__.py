"""Copies of a run's records for other trackers: wandb, TensorBoard, trackio.

A logger reads the rows that the run folder holds. It computes no number, and never ends a run.

Decisions: docs/decisions/loggers.md
"""
