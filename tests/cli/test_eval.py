"""The line of `aha eval`."""

from aha.cli.eval import solve_rate_line

ROW = {
    "solve_rate": 0.25,
    "interval": [0.2, 0.3],
    "problems": 1000,
    "available": None,
    "mean_tokens": 60.2,
    "truncated": 0.0,
}


def test_pass_at_k_is_in_the_text_too():
    assert "pass@" not in solve_rate_line("m", ROW)
    passed = {"pass_at_k": {"1": 0.25, "2": 0.4, "4": 0.5678}}
    assert solve_rate_line("m", ROW | passed) == (
        "m: solve rate 0.250 [0.200, 0.300] on 1,000 problems, 60 tokens each, 0.0% truncated, "
        "pass@2 0.400, pass@4 0.568"
    )
