"""`aha prefer` on the command line: from completions to a run with its tests."""

import json

import pytest

QUICK = ("--tests", 4, "--max-new-tokens", 8, "--examples", 2, "--dtype", "float32")


def row(prompt: str, text: str, correct: bool = True) -> dict:
    return {"prompt": prompt, "completion": text, "correct": correct, "tokens": len(text)}


@pytest.fixture
def completions(tmp_path):
    rows = [row(f"{n}+1=", text) for n in range(3) for text in ("4", "let me see: 4")]
    rows += [row("0+1=", "5", False), row("9", "no", False)]
    path = tmp_path / "completions.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


@pytest.mark.parametrize("method", ["simpo", "dpo"])
def test_a_run_on_pairs_with_its_tests(aha, model, completions, tmp_path, method):
    words = ("prefer", model, "--data", completions, *QUICK, "--method", method, "--name", "one")
    stopped = aha(*words, "--budget", "0.000001s")
    assert stopped.code == 3, stopped.err
    done = aha(*words)
    assert done.code == 0, done.err
    assert "learns 4 pairs of" in done.out
    assert "4 kept" in done.out and "3 of shorter (1 tokens over 13)" in done.out
    assert "tokens of a completion" in done.out
    summary = json.loads((tmp_path / "runs/one/summary.json").read_text())
    assert summary["steps"] == 2 and summary["before"]["problems"] == 4
    config = json.loads((tmp_path / "runs/one/config.json").read_text())
    assert config["kind"] == "prefer" and config["preference"]["method"] == method
    change = json.loads((tmp_path / "data/one/change.json").read_text())
    assert {"before", "after", "gained", "length_change"} == change.keys()
    # It goes on as it began: other settings are refused, and not passed over.
    for more, message in (
        (("--epochs", 9), "runs/one learns with epochs 1, not 9"),
        (("--nll", 0.5), "learns with preference.nll 0.0, not 0.5"),
        (("--tests", 2), "data/one was made with test"),
        (("--last", 3), "data/one was made with last 20, not 3"),
    ):
        words_now = [*words, *more] if more[0] != "--tests" else [*words[:4], *more, *words[6:]]
        refused = aha(*words_now)
        assert refused.code == 2 and message in refused.err, refused.err
        assert "--name one-2" in refused.err and "--reuse" not in refused.err
    # A run of pairs is a run: it goes on, is reported, tested and taken as a base.
    again = aha("train", "--resume", "runs/one")
    assert again.code == 0 and "runs/one is done: nothing is left to train" in again.out
    assert json.loads((tmp_path / "runs/one/summary.json").read_text()) == summary
    assert aha("report", "runs/one", "--out", "report.html").code == 0
    assert aha("export", "runs/one", "--out", "exported").code == 0
    card = (tmp_path / "exported/README.md").read_text()
    assert "learning from preference pairs" in card


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no file or run"),
        (("--data", "none.jsonl"), "no file or run none.jsonl"),
        (("--data", "wrong.jsonl"), "1 no right completion"),
        (("--data", "wrong.jsonl"), "fix: aha eval aha-tiny --split train"),
        (("--data", "completions.jsonl", "--beta", -1), "--beta"),
        (("--data", "completions.jsonl", "--most", 0), "--most"),
        (("--data", "completions.jsonl", "--lr", "nan"), "optim.lr = nan"),
    ],
)
def test_bad_input_is_one_line_and_no_run(aha, completions, tmp_path, words, message):
    (tmp_path / "wrong.jsonl").write_text(json.dumps(row("a", "b", False)) + "\n")
    done = aha("prefer", "aha-tiny", *words, "--tests", 0)
    assert done.code == 2 and message in done.err, done.err
    assert not (tmp_path / "runs").exists()
