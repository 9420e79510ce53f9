"""The command line: parses, and calls one function of one room.

Decisions: docs/decisions/cli.md
"""
