"""Evaluation: held-out accuracy with intervals, the same problems before and after, a baseline.

Decisions: docs/decisions/eval.md
"""
