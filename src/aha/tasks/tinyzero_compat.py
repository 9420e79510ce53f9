"""TinyZero's Countdown reward with all its faults, for runs that are to be compared with it.

0 without a readable answer, 0.1 for any answer block, 1.0 for one that its rule accepts. The rule
searches the last line alone, accepts power, floor division, decimals and unary minus, and allows
an error of 1e-5. Source: `verl/utils/reward_score/countdown.py` of TinyZero @95df88f, described in
words and written anew. Deviation: no `eval`, so `9**9**9**9` gets 0.1 where TinyZero hangs.
"""

import ast
import operator
import re
from collections.abc import Callable
from typing import Any

from aha.core.records import Graded
from aha.tasks.tags import ANSWER_CLOSE, ANSWER_OPEN

_ALLOWED = re.compile(r"^[\d+\-*/().\s]+$")
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}
MAX_READ = 1_000
MAX_EXPONENT = 64
MAX_VALUE = 10**18


class NotEvaluable(Exception):
    """An answer on which TinyZero's `eval` would raise or hang."""


def value_of(node: ast.AST) -> float:
    """The value of a parsed answer, as Python's floats give it. Raises `NotEvaluable` for anything
    but numbers, signs and the six operators, and for powers too large to compute."""
    if isinstance(node, ast.Expression):
        return value_of(node.body)
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        if type(node.value) is not bool:
            return node.value
    if isinstance(node, ast.UnaryOp):
        negative = False
        # A call for each of a thousand signs would end where the caller's own stack lets it.
        while isinstance(node, ast.UnaryOp):
            if not isinstance(node.op, ast.USub | ast.UAdd):
                raise NotEvaluable
            negative ^= isinstance(node.op, ast.USub)
            node = node.operand
        inner = value_of(node)
        return -inner if negative else inner
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = value_of(node.left), value_of(node.right)
        if isinstance(node.op, ast.Pow) and (abs(right) > MAX_EXPONENT or abs(left) > MAX_VALUE):
            raise NotEvaluable
        value: float = _BINARY[type(node.op)](left, right)
        return value
    raise NotEvaluable


def last_answer(text: str, template: str) -> str | None:
    """What TinyZero extracts: the last answer on the last line, after its first 'Assistant:'.

    With its base template that cut falls into the prompt; with the instruct template the prompt
    has no such word, so one inside the completion cuts the completion.
    """
    if template == "instruct" and "Assistant:" in text:
        text = text.split("Assistant:", 1)[1]
    line = text.rsplit("\n", 1)[-1]
    position, answer = 0, None
    # The last match of `<answer>(.*?)</answer>`, but linear in the line: the pattern would search
    # to the end again for every tag that is never closed.
    while (start := line.find(ANSWER_OPEN, position)) >= 0:
        end = line.find(ANSWER_CLOSE, start)
        if end < 0:
            break
        answer, position = line[start + len(ANSWER_OPEN) : end].strip(), end + len(ANSWER_CLOSE)
    return answer


def grade_as_tinyzero(
    text: str, numbers: tuple[int, ...], target: int, template: str = "r1"
) -> Graded:
    """TinyZero's score with a reason. `correct` is its 1.0, which the strict verifier may deny."""
    answer = last_answer(text, template)
    if answer is None:
        return Graded(0.0, False, "TinyZero finds no answer on the last line")
    if sorted(int(n) for n in re.findall(r"\d+", answer[:MAX_READ])) != sorted(numbers):
        return Graded(0.1, False, "TinyZero: format only, the numbers differ")
    if len(answer) > MAX_READ or not _ALLOWED.match(answer):
        return Graded(0.1, False, "TinyZero: format only, characters not allowed")
    try:
        value = value_of(ast.parse(answer, mode="eval"))
        right = abs(value - target) < 1e-5
    except (
        NotEvaluable,
        SyntaxError,
        ArithmeticError,
        TypeError,
        ValueError,
        MemoryError,
    ) as error:
        return Graded(0.1, False, f"TinyZero: format only, {type(error).__name__}")
    except RecursionError:
        return Graded(0.1, False, "TinyZero: format only, nested too deep")
    if right:
        return Graded(1.0, True, "TinyZero accepts it")
    return Graded(0.1, False, "TinyZero: format only, another value")
