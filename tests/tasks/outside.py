"""A task as a stranger might write it, whose grader does to each text what the text says."""

import os
import time

from aha.core.records import Graded, Problem


def problems(split, seed):
    for number in range(1_000):
        if (number % 10 == 0) == (split == "test"):
            yield Problem(f"outside/{number}", "outside", {"number": number})


def ask(problem):
    return f"{problem.given['number']}?"


def grade(problem, text):
    if text == "raise":
        raise ValueError("two\nlines")
    if text == "exit":
        raise SystemExit(3)
    if text == "hang":
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass
    if text == "crash":
        os._exit(7)
    if text == "print":
        print("a grader that prints to standard output")
    odd = {
        "None": None,
        "nan": float("nan"),
        "text": "1.0",
        "parts": Graded(1.0, True, "", {"a": "b"}),
        "reason": Graded(1.0, True, 5),
        "infinite": Graded(float("inf"), True, ""),
        "lambda": lambda: 1,
        "number": 0.5,
        "true": True,
    }
    if text in odd:
        return odd[text]
    right = text == str(problem.given["number"])
    return Graded(float(right), right, "as it is" if right else "another number", {"length": 1})
