"""Behaviours over many completions: per attempt, per 100 tokens, and as means of a step or a
run."""

from collections.abc import Iterable

from aha.behaviors.detector import COUNTS, Behaviours

# Besides the mean count, the share of completions that show the behaviour at all.
SHARES = ("checks", "backtracks", "subgoals", "backward_chains", "repeats", "illegal")
PER_ATTEMPT = ("lines", "line_errors", "illegal", "checks", "subgoals", "backward_chains")
PER_TOKENS = (*PER_ATTEMPT, "attempts", "backtracks")


def rates(behaviours: Behaviours, num_tokens: int) -> dict[str, float]:
    """Counts per attempt and per 100 tokens, because longer completions have larger counts.

    A ratio that has no denominator (no attempt, no token) is left out, not set to 0.
    """
    ratios = {}
    if behaviours.attempts:
        for name in PER_ATTEMPT:
            ratios[f"{name}_per_attempt"] = getattr(behaviours, name) / behaviours.attempts
    if num_tokens:
        for name in PER_TOKENS:
            ratios[f"{name}_per_100_tokens"] = 100 * getattr(behaviours, name) / num_tokens
    return ratios


def summarise(many: Iterable[Behaviours]) -> dict[str, float]:
    """Means, shares and ratios over completions, for one row of metrics.

    - the mean of every count under its own name, and of `backtracks`; `completions`, how many; -
    `share_with_<count>`: completions that show it at least once; `share_solved` (the working has a
    solution), `share_answered`, `share_solved_not_answered`; - `line_accuracy` = 1 - line errors /
    lines, `line_legality` = 1 - illegal / lines,
      `verdict_truth` = true checks / checks, `explicit_share` of checks, `subgoal_success` =
      achieved / subgoals, `repeat_share` = repeats / attempts, all over the lines (checks,
      subgoals, attempts) of all completions together;
    - `attempts_until_solved`: the mean over those with a solution.

    A ratio that has no denominator is left out: a base that never checks has no `verdict_truth`.
    """
    rows = list(many)
    if not rows:
        return {"completions": 0.0}
    num = len(rows)
    total = {name: sum(getattr(row, name) for row in rows) for name in (*COUNTS, "backtracks")}
    means = {"completions": float(num)}
    means |= {name: total[name] / num for name in total}
    for name in SHARES:
        means[f"share_with_{name}"] = sum(getattr(row, name) > 0 for row in rows) / num
    means["share_solved"] = sum(row.solution_seen for row in rows) / num
    means["share_answered"] = sum(row.answered for row in rows) / num
    unanswered = sum(row.solution_seen_not_answered for row in rows)
    means["share_solved_not_answered"] = unanswered / num
    if total["lines"]:
        means["line_accuracy"] = 1 - total["line_errors"] / total["lines"]
        means["line_legality"] = 1 - total["illegal"] / total["lines"]
    for name, part, of in (
        ("verdict_truth", "true_checks", "checks"),
        ("explicit_share", "explicit_checks", "checks"),
        ("subgoal_success", "subgoals_achieved", "subgoals"),
        ("repeat_share", "repeats", "attempts"),
    ):
        if total[of]:
            means[name] = total[part] / total[of]
    solved = [row.attempts_until_solved for row in rows if row.attempts_until_solved is not None]
    if solved:
        means["attempts_until_solved"] = sum(solved) / len(solved)
    return means
