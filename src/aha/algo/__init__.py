"""Pure functions of reinforcement learning: tensors in, tensors out; no model, no files, no state.

Shapes: P prompts, G completions of a prompt, B rows, T tokens.

Decisions: docs/decisions/algo.md
"""
