"""A transformer that trains and generates, its tokenizer, and weights in and out.

Decisions: docs/decisions/model.md
"""
