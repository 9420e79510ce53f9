"""Studies: several runs that answer one question about recipes.

Decisions: docs/decisions/studies.md
"""
