"""The doctor's reading of a run: every planted fault is found, and a healthy run passes."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from aha.core.errors import RunError
from aha.core.findings import worst_level
from aha.doctor import metric_checks, run_checks
from aha.doctor.run_checks import all_findings, diagnose, first_step_findings, unexplained
from aha.doctor.run_files import RunRecords, compare_weight_files
from aha.store.run_folder import TUNING_KINDS, Run, append
from aha.web.run_comparison import PairedComparison

STEPS = 40
CHECKS = run_checks.checks | metric_checks.checks
CONFIG = {
    "steps": STEPS,
    "rollout": {"group_size": 16, "max_new_tokens": 320},
    "algo": {"resample_rounds": 3},
}


def row(step: int) -> dict:
    """One step of a run that goes from .2 to .8 solved, as the demo does."""
    done = step / STEPS
    return {
        "step": step,
        "reward": 0.2 + 0.6 * done,
        "solve_rate": 0.2 + 0.6 * done,
        "groups_none_solved": 0.2 - 0.15 * done,
        "groups_all_solved": 0.4 * done,
        "informative": 0.8 - 0.25 * done,
        "mean_tokens": 33 + 80 * done,
        "tokens": 512 * (33 + 80 * done),
        "grade_errors": 0,
        "truncated": 0.12 * done,
        "loss": -0.01,
        "grad_norm": 0.03 - 0.01 * done,
        "mismatch": 0.003 + 0.002 * done,
        "entropy": 0.25 - 0.08 * done,
        "lr": 3e-4,
        "draw_gap": 0.001 * (-1) ** step,
        "draw_z": 0.5 * (-1) ** step,
        "duplicates": 3.0,
        "duplicates_expected": 2.5,
        "mismatch_ess": 0.99,
        "kl": 1e-4 * step,
        "explained": 0.5 * done,
    }


def prompts(*steps: str) -> list[frozenset[str]]:
    """Of each step eight prompts, named by it."""
    return [frozenset(f"{step}{i}" for i in range(8)) for step in steps]


def look(step: int, rate: float, **behaviors: float) -> dict:
    habits = {"line_accuracy": 0.95, "line_legality": 0.9, "verdict_truth": 0.99}
    return {
        "step": step,
        "solve_rate": rate,
        "interval": [rate - 0.03, rate + 0.03],
        "behaviors": habits | {"repeat_share": 0.1} | behaviors,
    }


NOTICED = {"step": 3, "level": "ok", "check": "grading", "message": "all graded", "fix": ""}


def healthy() -> RunRecords:
    return RunRecords(
        CONFIG,
        [row(step) for step in range(1, STEPS + 1)],
        [look(20, 0.55), look(40, 0.8)],
        look(0, 0.2),
        look(STEPS, 0.8),
        finished=True,
        changed_share=1.0,
        distance=0.05,
        findings=[NOTICED],
        prompts_by_step=prompts(*"abcdef"),
    )


def all_rows(**values) -> RunRecords:
    """The healthy run with some columns held at one value."""
    run = healthy()
    return replace(run, metrics=[old | values for old in run.metrics])


def column(key: str, *values: float | None) -> RunRecords:
    """The healthy run with a column that goes through these values in equal parts."""
    run = healthy()
    part = math.ceil(STEPS / len(values))
    rows = [old | {key: values[i // part]} for i, old in enumerate(run.metrics)]
    return replace(run, metrics=rows)


def habits(**last: float) -> RunRecords:
    run = healthy()
    return replace(run, evals=[look(20, 0.55), look(40, 0.8, **last)], after=look(40, 0.8, **last))


def config(section: str, **values) -> dict:
    return CONFIG | {section: CONFIG[section] | values}


UNSOLVED = {"solve_rate": 0.0, "reward": 0.0, "groups_none_solved": 1.0, "informative": 0.0}

FAULTS = {
    "no step": ("steps", "fail", lambda: replace(healthy(), metrics=[])),
    "a step is missing": (
        "steps",
        "warn",
        lambda: replace(healthy(), metrics=[r for r in healthy().metrics if r["step"] != 7]),
    ),
    "a run of three steps": (
        "steps",
        "warn",
        lambda: replace(healthy(), metrics=healthy().metrics[:3]),
    ),
    "no gain": ("learned", "fail", lambda: replace(healthy(), after=look(40, 0.22))),
    "got worse": ("learned", "fail", lambda: replace(healthy(), after=look(40, 0.1))),
    "no gain so far": (
        "learned",
        "warn",
        lambda: replace(all_rows(solve_rate=0.2), before=None, after=None),
    ),
    "some grades fail": ("grading", "warn", lambda: all_rows(grade_errors=5)),
    "many grades fail": ("grading", "fail", lambda: all_rows(grade_errors=300)),
    "the grader stopped it at once": (
        "grading",
        "fail",
        lambda: replace(
            healthy(),
            metrics=[],
            findings=[{"check": "grade_errors", "level": "fail", "message": "4 of 4 failed"}],
        ),
    ),
    "nothing solved": ("none_solved", "fail", lambda: all_rows(**UNSOLVED)),
    "all solved from the start": (
        "all_solved",
        "fail",
        lambda: all_rows(groups_all_solved=1.0, solve_rate=1.0, informative=0.0),
    ),
    "few groups teach": ("informative", "warn", lambda: all_rows(informative=0.1)),
    "no group teaches": ("informative", "fail", lambda: all_rows(informative=0.0)),
    "resampling in vain": ("resampling", "warn", lambda: all_rows(asked=3.0, informative=0.5)),
    "format only": (
        "format_only",
        "fail",
        lambda: replace(
            healthy(), metrics=[old | {"solve_rate": 0.2} for old in healthy().metrics]
        ),
    ),
    "the run noticed a fault": (
        "noticed",
        "warn",
        lambda: replace(
            healthy(), findings=[NOTICED, NOTICED | {"level": "warn", "fix": "mend it"}]
        ),
    ),
    "the same problems for ever": (
        "new_problems",
        "fail",
        lambda: replace(healthy(), prompts_by_step=prompts(*"aaaaaa")),
    ),
    "few problems": (
        "new_problems",
        "warn",
        lambda: replace(healthy(), prompts_by_step=prompts(*"ababab")),
    ),
    "a grader that stops paying": (
        "none_solved",
        "fail",
        lambda: rows_from(20, **UNSOLVED | {"grad_norm": 0.0}),
    ),
    "drawn more greedily": ("drawing", "fail", lambda: all_rows(draw_gap=-0.02, draw_z=-2.0)),
    "drawn less greedily": ("drawing", "fail", lambda: all_rows(draw_gap=0.02, draw_z=2.0)),
    "each completion twice": ("duplicates", "fail", lambda: all_rows(duplicates=64.0)),
    "weights that forget most": ("mismatch_weights", "warn", lambda: all_rows(mismatch_ess=0.7)),
    "weights that forget all": ("mismatch_weights", "fail", lambda: all_rows(mismatch_ess=0.1)),
    "a reference that is the policy": ("kl", "fail", lambda: all_rows(kl=0.0)),
    "a critic that is a constant": ("critic", "warn", lambda: all_rows(explained=0.0)),
    "gradient vanishes": ("gradient", "warn", lambda: column("grad_norm", 0.03, 3e-3, 3e-4, 3e-5)),
    "entropy collapsed": ("entropy", "fail", lambda: column("entropy", 0.25, 0.1, 0.02, 0.01)),
    "entropy dissolves": ("entropy", "warn", lambda: column("entropy", 0.25, 0.5, 1.0, 2.0)),
    "often cut off": ("truncated", "warn", lambda: column("truncated", 0.0, 0.1, 0.2, 0.3)),
    "always cut off": ("truncated", "fail", lambda: all_rows(truncated=1.0)),
    "length runs away": ("length", "warn", lambda: column("mean_tokens", 33, 100, 300, 900)),
    "sums drift": ("arithmetic", "warn", lambda: habits(line_accuracy=0.8)),
    "sums lost": ("arithmetic", "fail", lambda: habits(line_accuracy=0.55)),
    "illegal lines": ("illegal", "fail", lambda: habits(line_legality=0.4)),
    "false verdicts": ("verdicts", "warn", lambda: habits(verdict_truth=0.85)),
    "turns in circles": ("repeats", "warn", lambda: habits(repeat_share=0.6)),
    "NaN": ("finite", "fail", lambda: column("loss", -0.01, math.nan)),
    "null, as a run writes NaN": ("finite", "fail", lambda: column("loss", -0.01, None)),
    "zero gradient": ("gradient", "fail", lambda: all_rows(grad_norm=0.0)),
    "gradient grows": ("gradient", "warn", lambda: column("grad_norm", 0.03, 0.1, 0.3, 0.6)),
    "gradient explodes": ("gradient", "fail", lambda: column("grad_norm", 0.03, 0.3, 3, 30)),
    "rate 0": ("learning_rate", "fail", lambda: all_rows(lr=0.0)),
    "rate too small for the type": (
        "weights",
        "fail",
        lambda: replace(healthy(), changed_share=0.01),
    ),
    "half of the weights stuck": ("weights", "warn", lambda: replace(healthy(), changed_share=0.3)),
    "a rate that leads nowhere": ("weights", "warn", lambda: replace(healthy(), distance=1e-6)),
    "mismatch grows": ("mismatch", "warn", lambda: column("mismatch", 0.003, 0.01, 0.03, 0.04)),
    "mismatch": ("mismatch", "fail", lambda: all_rows(mismatch=0.5)),
    "held out falls": (
        "held_out",
        "fail",
        lambda: replace(healthy(), evals=[look(20, 0.6), look(40, 0.4)]),
    ),
}


def rows_from(first: int, **values) -> RunRecords:
    """The healthy run with other values from a step on."""
    run = healthy()
    return replace(
        run, metrics=[old | (values if old["step"] >= first else {}) for old in run.metrics]
    )


def found(run: RunRecords) -> dict:
    return {finding.check: finding for finding in all_findings(run)}


def test_a_last_rollout_that_was_enough_is_no_fault():
    assert found(all_rows(asked=3.0, informative=1.0))["resampling"].level == "ok"


def test_a_gain_is_judged_problem_by_problem():
    """Of the same problems 45 are won and 15 lost: intervals of the two rates overlap."""
    run = replace(healthy(), before=look(0, 0.80), after=look(STEPS, 0.82))
    assert found(run)["learned"].level == "fail"
    gain = PairedComparison(1_000, 800, 830, 0.03, (0.016, 0.045), [], [], [], 0)
    assert found(replace(run, gain=gain))["learned"].level == "ok"
    for interval, words in (((-0.01, 0.05), "no evidence"), ((-0.05, -0.01), "it got worse")):
        finding = found(replace(run, gain=replace(gain, interval=interval)))["learned"]
        assert finding.level == "fail" and words in finding.message


def test_a_healthy_run_raises_no_alarm():
    findings = found(healthy())
    assert worst_level(list(findings.values())) == "ok", findings
    # Every check but the one about resampling has something to say about it.
    assert set(findings) == set(CHECKS) - {"resampling"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault):
    check, level, plant = FAULTS[fault]
    finding = found(plant())[check]
    assert finding.level == level and finding.fix, finding


def test_every_check_has_a_planted_fault():
    assert set(CHECKS) == {check for check, _, _ in FAULTS.values()}


def test_a_broken_grader_is_told_with_its_reason_and_not_as_hard_problems():
    reasons = {"the grader raised KeyError: 'solution'": 200}
    run = all_rows(**UNSOLVED, grade_errors=512)
    run = replace(run, after=look(40, 0.0) | {"grade_errors": 200, "grade_error_reasons": reasons})
    assert (
        "none_solved" not in found(run) and "KeyError: 'solution'" in found(run)["grading"].message
    )
    assert "100.0%" in found(run)["grading"].message
    first = first_step_findings(run.metrics[0], run.config)
    assert "none_solved" not in [finding.check for finding in first]


def test_what_looks_like_a_fault_and_is_none():
    """Success flattens groups and empties the entropy; long thoughts that pay are no runaway."""
    done = all_rows(solve_rate=0.99, groups_all_solved=0.95, informative=0.05, entropy=0.2)
    done.metrics[:5] = healthy().metrics[:5]
    assert {found(done)[name].level for name in ("informative", "all_solved", "entropy")} == {"ok"}
    single = replace(all_rows(informative=0.0), config=config("rollout", group_size=1))
    assert "informative" not in found(single)
    assert found(column("mean_tokens", 33, 50, 80, 120))["length"].level == "ok"
    # A base that calculates badly has not drifted.
    bad = {"line_accuracy": 0.6}
    run = replace(healthy(), before=look(0, 0.2, **bad), evals=[], after=look(40, 0.8, **bad))
    assert found(run)["arithmetic"].level == "ok"


DEMO = Path(__file__).resolve().parents[2] / "results" / "demo"


@pytest.mark.parametrize("file", sorted(DEMO.glob("seed_?.json")), ids=lambda path: path.stem)
def test_the_runs_that_learned_raise_no_alarm(file):
    """The real ones, as far as they are filed."""
    filed = json.loads(file.read_text())
    tests = (filed["summary"]["before"], filed["summary"]["after"])
    run = RunRecords(filed["config"], filed["curve"], [], *tests, finished=True)
    findings = found(run)
    assert worst_level(list(findings.values())) == "ok", findings
    assert "it learned" in findings["learned"].message


def test_a_grader_that_stops_paying_is_no_collapse():
    """The policy is as it was: nothing about its entropy, nothing about easier problems."""
    findings = found(rows_from(20, **UNSOLVED | {"grad_norm": 0.0}))
    message = findings["none_solved"].message
    assert "from step 20 on" in message and "grader" in message and "informative" not in findings
    assert findings["entropy"].level == "ok"
    # A policy that forgets goes down over many steps; then it was not the grader.
    run = column("solve_rate", 0.4, 0.3, 0.2, 0.1, 0.05, 0.01, 0.0, 0.0)
    run = replace(run, metrics=[old | {"groups_none_solved": 1.0} for old in run.metrics])
    assert "in 100% of the groups" in found(run)["none_solved"].message
    # So it does where its entropy goes with it.
    collapsed = found(rows_from(20, **UNSOLVED | {"entropy": 0.001}))
    assert "grader" not in collapsed["none_solved"].message
    assert collapsed["entropy"].level == "fail"


def test_steps_without_a_measurement_are_no_fault():
    """A step without a computed row has no mismatch; one without returns that differ no
    `explained`."""
    run = healthy()
    for old in run.metrics[20:]:
        for key in ("mismatch", "kl", "explained", "mismatch_ess"):
            del old[key]
    assert worst_level(list(found(run).values())) == "ok"


def test_drift_names_the_step_where_it_was_first_seen():
    assert "step 40" in found(habits(line_accuracy=0.55))["arithmetic"].message


def test_a_short_run_is_told_of_with_a_fix_that_it_takes():
    """A fine-tuning goes on as it began: `--resume` takes no --steps for it."""
    rows = [{"step": step, "loss": 1.0} for step in range(1, 5)]
    for kind in (None, *TUNING_KINDS):
        config = {"steps": 4} | ({"kind": kind} if kind else {})
        finding = found(RunRecords(config, rows, [], finished=True))["steps"]
        assert finding.level == "warn" and "only 4 steps" in finding.message
        assert ("--epochs" in finding.fix) == (kind is not None)
        assert ("--resume" in finding.fix) == (kind is None)


def test_rows_without_a_column_are_no_alarm_and_a_damaged_one_is_told():
    bare = RunRecords({"steps": 3}, [{"step": step} for step in (1, 2, 3)], [])
    assert [f.check for f in all_findings(bare)] == ["steps", "finite"]
    odd = replace(healthy(), evals=[{"step": 1, "interval": [0, 1]}, {"interval": [0, 1]}])
    assert "could not look" in found(odd)["held_out"].message


# -- from a folder ---------------------------------------------------------------------------


def write_run(path: Path, run: RunRecords, base: Path | None = None) -> None:
    folder = Run.create(path, run.config | {"model": {"path": str(base)}})
    append(folder.metrics, run.metrics)
    append(path / "evals.jsonl", run.evals)
    for name, test in (("before", run.before), ("after", run.after), ("summary", {"steps": 1})):
        folder.write(f"{name}.json", test)


def write_weights(folder: Path, weights: np.ndarray) -> None:
    folder.mkdir(parents=True)
    save_file({"a": weights, "b": np.zeros(3, np.float32)}, folder / "model.safetensors")


def test_a_run_folder_is_read_with_its_weights(tmp_path):
    base, run = tmp_path / "base", tmp_path / "run"
    write_run(run, healthy(), base)
    write_weights(base, np.arange(97, dtype=np.float32))
    assert "weights" not in {f.check for f in diagnose(run)}  # nothing to compare with yet
    write_weights(run / "checkpoints" / "step_000020", np.arange(97, dtype=np.float32))
    stuck = {f.check: f for f in diagnose(run)}
    assert stuck["weights"].level == "fail" and stuck["weights"].message.startswith("0.0%")
    write_weights(run / "model", np.arange(97, dtype=np.float32) + 1)
    moved = {f.check: f for f in diagnose(run)}
    assert moved["weights"].level == "ok" and moved["weights"].message.startswith("97.0%")
    assert worst_level(list(moved.values())) == "ok"


def test_weights_of_other_shapes_or_types_are_not_compared(tmp_path):
    paths = []
    for name, weights in (("a", np.ones(3, np.float32)), ("b", np.ones(3, np.float16))):
        write_weights(tmp_path / name, weights)
        paths.append(tmp_path / name / "model.safetensors")
    assert compare_weight_files((paths[0], paths[0])) == (0.0, 0.0)
    assert compare_weight_files((paths[0], paths[1])) is None
    paths[1].write_bytes(b"\xff" * 9)
    assert compare_weight_files((paths[0], paths[1])) is None


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_way_that_weights_went_is_told_for_every_type(tmp_path, dtype):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save

    paths = [tmp_path / name for name in ("a", "b")]
    for path, last in zip(paths, (4.0, 4.5), strict=True):
        save({"w": torch.tensor([0.0, 3.0, last]).to(getattr(torch, dtype))}, path)
    # One of three differs; |0.5| against |(0, 3, 4)| = 5.
    assert compare_weight_files(tuple(paths)) == pytest.approx((1 / 3, 0.1))


def test_a_run_that_did_not_learn_with_nothing_else_off_had_too_little_training():
    found = all_findings(replace(healthy(), after=look(40, 0.22)))
    assert [f.check for f in unexplained(found)] == ["why"]
    assert unexplained(all_findings(healthy())) == []
    flat = replace(all_rows(informative=0.0), after=look(40, 0.22))
    assert unexplained(all_findings(flat)) == []


def test_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(RunError, match="no run"):
        diagnose(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(RunError, match="no run"):  # a model folder has a config.json too
        diagnose(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(RunError, match="no JSON object"):
        diagnose(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text('7\nnonsense\n{"step": 1}\n{"step": ')
    assert [f.check for f in diagnose(tmp_path)] == ["steps", "finite", "files"]


def test_the_first_step_is_judged_by_its_row_alone():
    assert worst_level(first_step_findings(row(1), CONFIG)) == "ok"
    odd = first_step_findings(row(1) | UNSOLVED | {"truncated": 1.0}, CONFIG)
    assert {f.check for f in odd if f.level != "ok"} == {"none_solved", "informative", "truncated"}
    odd = first_step_findings(row(1) | {"mismatch": 0.5}, CONFIG)
    assert [f.check for f in odd if f.level != "ok"] == ["mismatch"]


def test_the_first_row_is_enough_for_what_it_measures():
    for values, check in (
        ({"draw_gap": -0.02, "draw_z": -7.0}, "drawing"),
        ({"duplicates": 64.0}, "duplicates"),
        ({"mismatch_ess": 0.1}, "mismatch_weights"),
    ):
        odd = first_step_findings(row(1) | values, CONFIG)
        assert [f.check for f in odd if f.level == "fail"] == [check]


def test_the_prompts_of_some_steps_are_read(tmp_path):
    run = Run.create(tmp_path / "run", {"steps": 13})
    for step in range(1, 14):
        rows = [{"step": step, "prompt": f"{step}/{i % 4}"} for i in range(8)]
        append(run.completions / f"step_{step:06d}.jsonl", rows)
    (run.completions / "step_000014.jsonl").symlink_to("/dev/zero")
    append(run.findings, [NOTICED | {"level": "odd"}, {"step": 1}, NOTICED])
    records = RunRecords.read(run.path)
    assert [len(step) for step in records.prompts_by_step] == [4] * 5
    assert records.findings == [NOTICED]


def test_a_run_is_read_without_torch():
    code = "import sys, aha.doctor.run_checks; assert not {'torch'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_findings_of_a_run_are_plain_text():
    assert json.dumps([finding.message for finding in all_findings(all_rows(loss=math.nan))])
