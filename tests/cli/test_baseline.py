"""`aha baseline`: one row of JSON for each search."""

import json


def rows_of(done) -> list[dict]:
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def test_without_a_search_it_is_blind_and_has_the_fields_that_it_always_had(aha):
    (row,) = rows_of(aha("baseline", "--n", 20, "--tokens", 90))
    assert {"numbers", "tokens", "n", "solve_rate", "interval"} <= row.keys()
    assert (row["search"], row["numbers"], row["tokens"], row["n"]) == ("blind", [3], 90, 20)
    assert row["interval"][0] <= row["solve_rate"] <= row["interval"][1]
    assert row["mean_tokens"] <= 90 and "at_mean" not in row


def test_all_searches_at_a_limit_and_at_a_mean(aha):
    words = ("--search", "all", "--n", 25, "--mean-tokens", 55.5, "--split", "validation")
    rows = rows_of(aha("baseline", *words))
    assert [row["search"] for row in rows] == ["blind", "in-order", "glance", "clairvoyant"]
    for row in rows:
        assert (row["tokens"], row["split"], row["n"]) == (320, "validation", 25)
        at_mean = row["at_mean"]
        assert at_mean["uses_fewer"] or 54.5 < at_mean["mean_tokens"] <= 55.5
        assert at_mean["solve_rate"] <= row["solve_rate"] or at_mean["tokens"] > 320
    rates = [row["at_mean"]["solve_rate"] for row in rows[1:]]
    assert rates == sorted(rates) and rates[0] < rates[-1]


def test_a_wrong_search_or_mean_is_refused(aha):
    for words in (("--search", "psychic"), ("--mean-tokens", 0), ("--mean-tokens", "nan")):
        done = aha("baseline", *words)
        assert done.code != 0 and words[0] in done.err
