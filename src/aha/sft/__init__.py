"""Supervised fine-tuning: a model learns the completions of a file, and nothing of its prompts.

Decisions: docs/decisions/sft.md
"""
