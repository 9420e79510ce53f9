"""Models of others over HTTP, through OpenAI's interface: an LLM judge, a teacher.

Decisions: docs/decisions/endpoints.md
"""
