"""A trained model for others to talk to: OpenAI's interface, and the voice of every chat.

Decisions: docs/decisions/serve.md
"""
