"""Next-token training of a base model from nothing.

Decisions: docs/decisions/pretrain.md
"""
