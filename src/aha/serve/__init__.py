"""Serves trained models: OpenAI's interface, and the answers of the chats.

Decisions: docs/decisions/serve.md
"""
