"""What every room shares: records, errors, config, seeds. Knows nobody.

Decisions: docs/decisions/core.md
"""
