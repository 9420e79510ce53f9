"""Looks for silent faults: in the machine, a recipe, its first step, a run.

Decisions: docs/decisions/doctor.md
"""
