"""Tasks: problems whose right answer is known, their prompts, and exact grading. No torch.

Decisions: docs/decisions/tasks.md
"""
