"""Serves a trained model: OpenAI's interface, and the completions of every chat.

Decisions: docs/decisions/serve.md
"""
