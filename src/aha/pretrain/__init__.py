"""Next-token training of a base model from random weights.

Decisions: docs/decisions/pretrain.md
"""
