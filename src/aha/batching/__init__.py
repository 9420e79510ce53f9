"""Graded completions as tensors: rows, micro-batches, and where each token lies.

Decisions: docs/decisions/batching.md
"""
