"""What every room shares: records, errors, config, seeds. Imports no other room.

Decisions: docs/decisions/core.md
"""
