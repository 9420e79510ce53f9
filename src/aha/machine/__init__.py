"""What is known of the machine: device, number types, memory, C code. Knows only core.

Decisions: docs/decisions/machine.md
"""
