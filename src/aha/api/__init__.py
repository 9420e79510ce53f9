"""The interface of Python programs: `import aha`. Signatures without torch until a call needs it.

Decisions: docs/decisions/api.md
"""
