"""The task that all three programs train: 600 puzzles whose answer is the sum of three numbers.

Rows and rule are the same for all and are not counted. The first call of the rule leaves the time
and the processor time of its process in the file that FIRST_REWARD names, for
`first_reward_seconds.py`.
"""

import os
import random
import time
from pathlib import Path


def puzzles() -> list[dict]:
    """{prompt, numbers} for each puzzle."""
    draw, rows = random.Random(0), []
    for numbers in (draw.sample(range(1, 60), 3) for _ in range(600)):
        prompt = f"numbers {' '.join(map(str, numbers))} target {sum(numbers)}\n<think>\n"
        rows.append({"prompt": prompt, "numbers": numbers})
    return rows


def is_sum(completion: str, numbers: list[int]) -> float:
    """1 where the answer is the sum of all numbers, in any order and with any brackets."""
    note = os.environ.get("FIRST_REWARD")
    if note and not Path(note).exists():
        Path(note).write_text(f"{time.time()} {time.process_time()}\n")
    answer = completion.partition("<answer>")[2].partition("</answer>")[0]
    terms = answer.replace("(", "").replace(")", "").split("+")
    return float(sorted(terms) == sorted(map(str, numbers)))
