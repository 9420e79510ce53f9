"""Checks for faults that raise no error: in the machine, a recipe, its first step, a run.

Decisions: docs/decisions/doctor.md
"""
