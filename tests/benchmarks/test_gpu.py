"""`make gpu` without a GPU: every item's own code on small shapes, rows, and what a crash leaves.

The figures mean nothing here. What is held is that they are there, finite, and computed as said.
"""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import decode, devices, items, ranks, steps, training
from benchmarks.gpu.bench import Bench, Endless, extreme
from benchmarks.gpu.rows import KEYS, Check, as_row, file_of, read_row, table, write_row

from aha.core.errors import DataError, RunStopped
from aha.dist.local_ranks import LOST_RANK, can_meet
from aha.dist.world import World
from aha.plan.shapes import shape_of

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def tiny(device: torch.device = CPU) -> Bench:
    return Bench("tiny", device)


def numbers_in(value) -> list[float]:
    """All numbers of a row, however deep."""
    if isinstance(value, dict):
        return [n for inner in value.values() for n in numbers_in(inner)]
    if isinstance(value, list):
        return [n for inner in value for n in numbers_in(inner)]
    return [value] if isinstance(value, int | float) else []


def measured(item: str, device: torch.device = CPU) -> dict:
    """An item's row, whole: no case failed, every check has its figure."""
    row = items.measure(item, tiny(device))
    assert row["error"] is None and row.keys() == KEYS and row["scale"] == "tiny"
    assert row["checks"] and all(check["measured"] is not None for check in row["checks"])
    assert all(map(math.isfinite, numbers_in(row))) and row["seconds"] > 0
    return row


# -- the items -----------------------------------------------------------------------------------


def test_decode_has_a_share_of_the_roofline_for_both_shapes():
    row = measured("decode")
    for case in row["numbers"]["cases"]:
        seconds = row["numbers"]["new_tokens"] * 8 / case["tokens_per_second"]
        copied = row["numbers"]["copy_bytes_per_second"]
        want = case["gigabytes_read"] * 1e9 / copied / seconds
        assert case["share_of_copy"] == pytest.approx(want)
    least = min(case["share_of_data_sheet"] for case in row["numbers"]["cases"])
    assert row["checks"][0]["measured"] == least


def test_bytes_of_a_call_by_hand():
    """4 tokens in 8 rows: three times all weights, and 161, 162 and 163 positions of each row; all
    numbers of four bytes."""
    bench = tiny()
    shape = bench.shape("Qwen2.5-0.5B")
    policy = decode.random_transformer(bench, shape, 4)
    ours = decode.NativeSide(policy, bench.prompts(1, shape), 4, "torch", "float32")
    positions = 8 * (161 + 162 + 163)
    want = 4 * (3 * shape.parameters + shape.kv_numbers * positions)
    assert ours.bytes_read(shape) == want
    assert ours.loop == "torch" and len(ours.generate(0)) == 8


def test_training_has_an_mfu():
    case = measured("training")["numbers"]["cases"][0]
    assert case["tokens_of_a_row"] == 176 and case["mfu_of_matmul"] > 0


def test_flops_of_an_update_by_hand():
    """Qwen2.5-1.5B, one row of 160 + 1,024: 6 FLOP for each of 1,543,714,304 weights and token, the
    head's 151,936 x 1,536 only for 1,024 of them; attention's 12 heads of 128 in 28 layers see half
    of the row, as keys and as values: 6 x 1,184 x 12 x 128 x 28 a token."""
    shape = shape_of("Qwen2.5-1.5B")
    assert shape.parameters == 1_543_714_304
    body, head = shape.parameters - 151_936 * 1_536, 151_936 * 1_536
    want = 6 * (body * 1184 + head * 1024) + 6 * 1184 * 12 * 128 * 28 * 1184
    assert training.flops(shape, 1, 160, 1024) == pytest.approx(want)
    assert training.flops(shape, 7, 160, 1024) == pytest.approx(7 * want)


@pytest.mark.parametrize(("item", "size"), [("memory-8gb", 8.0), ("memory-24gb", 24.0)])
def test_memory_is_that_of_whole_steps_at_full_length(item, size):
    row = measured(item)
    (case,) = row["numbers"]["cases"]
    limit = case["config"]["rollout"]["max_new_tokens"]
    rows = case["config"]["rollout"]["prompts"] * case["config"]["rollout"]["group_size"]
    assert case["tokens_of_a_step"] == rows * limit and row["numbers"]["limit_gb"] == size
    assert case["memory_over_plan"] > 0 and case["time_over_plan_table"] > 0


def test_losses_are_those_of_the_cpu():
    """The other device is the plain loop here: the same numbers, whoever writes the completions."""
    row = measured("same-losses")
    (case,) = row["numbers"]["cases"]
    assert len(case["losses"]) == 5 and any(case["losses"])
    assert case["gap_replayed"] < 1e-4 and row["checks"][0]["met"] == "must"


def test_the_plan_is_asked_with_and_without_a_probe():
    cases = measured("plan")["numbers"]["cases"]
    assert [case["case"] for case in cases] == list(steps.PLANNED)
    assert all(case["time_over_plan_probe"] != case["time_over_plan_table"] for case in cases)


def test_transformers_writes_as_much_with_the_same_weights():
    pytest.importorskip("transformers")
    case = measured("transformers")["numbers"]["cases"][0]
    assert case["ratio"] > 0 and set(case["pre_run_seconds"]) == {"dynamic", "static"}


def test_other_weights_in_transformers_are_noticed():
    pytest.importorskip("transformers")
    bench = tiny()
    policy = decode.random_transformer(bench, bench.shape("Qwen2.5-0.5B"), 4)
    theirs = decode.TransformersSide(policy, torch.float32)
    with torch.no_grad():
        policy.model.layers[0].mlp.down_proj.weight.mul_(1.1)
    with pytest.raises(AssertionError, match="not the same model"):
        theirs.check_same(policy)


def test_every_loop_of_the_engine_is_tried():
    row = measured("loops")
    for case in row["numbers"]["cases"]:
        tried = {*case["seconds"], *case["refused"]}
        assert tried == {"compiled", "graphs", "torch"}
        assert {"graphs", "torch"} <= case["seconds"].keys()
    assert row["checks"][-1]["measured"] == 1.0


def test_small_models_are_measured_on_both_sides():
    row = measured("small")
    assert [case["case"] for case in row["numbers"]["cases"]] == [
        "aha-tiny, its recipe",
        "aha-tiny, random",
    ]
    assert row["numbers"]["quicker_from"] is None


@pytest.mark.slow  # it starts ranks five times
@pytest.mark.skipif(not can_meet(), reason="this torch has no gloo")
def test_two_ranks_are_compared_with_one_and_lose_one():
    row = measured("ranks")
    steps_case, sums, ends = row["numbers"]["cases"]
    assert len(steps_case["losses"]) == 3 and any(steps_case["losses"])
    assert steps_case["losses_of_ranks"] != [] and sums["gigabytes_per_second"] > 0
    assert {check["met"] for check in row["checks"][:2]} == {"must"}
    assert 0 < ends["sums_s"] < 30 and 0 < ends["model_s"] < 30


class LostRank:
    """Ranks of which none was started: the first wait for one is its end."""

    def __init__(self, size: int, work):
        self.world = World()

    def __enter__(self) -> World:
        return self.world

    def __exit__(self, *unused) -> None:
        raise RunStopped("rank 1 is gone", "all ranks", "again", check=LOST_RANK)


def test_the_end_of_a_rank_is_timed_from_its_kill(monkeypatch):
    """And not from before NCCL has started, which takes seconds."""
    monkeypatch.setattr(ranks, "LocalRanks", LostRank)
    monkeypatch.setattr(ranks, "take_device", lambda world, device: time.sleep(1.0))
    assert ranks.seconds_to_the_end(CPU, lambda device, world: None) < 1.0


def test_ranks_without_a_gpu_each_leave_a_row_without_a_figure(monkeypatch):
    bench = tiny(torch.device("cuda"))
    monkeypatch.setattr(ranks, "num_gpus", lambda: 1)
    numbers, checks = ranks.ranks(bench)
    assert numbers == {"gpus": 1, "cases": []} and bench.failures == []
    assert {check.met for check in checks} == {"not measured"}


def test_the_crossing_lies_between_two_sizes():
    cases = [{"parameters": n, "times_the_cpu": x} for n, x in ((1, 0.2), (5, 0.9), (9, 1.5))]
    assert devices.crossing(cases) == [5, 9]
    assert devices.crossing(cases[:2]) is None


@pytest.mark.gpu
@pytest.mark.parametrize("item", items.ITEMS)
def test_every_item_on_a_gpu_in_small(item):
    if item == "ranks" and torch.cuda.device_count() < 2:
        pytest.skip("one GPU; the item `ranks` wants two")
    row = measured(item, torch.device("cuda"))
    assert row["card"]["memory_gb"] > 0 and row["driver"] and row["versions"]["cuda"]


# -- what an item is made of ---------------------------------------------------------------------


def test_no_completion_of_random_weights_ends():
    tokenizer = Endless(320)
    assert tokenizer.stop_ids == [320] and tokenizer.encode(tokenizer.say("407")) == [4, 0, 7]
    assert tokenizer.decode([4, 11]) == "4 11"


def test_a_case_that_fails_is_told_and_the_next_one_runs():
    bench = tiny()

    def too_large() -> dict:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 TiB\nmore words")

    bad, good = bench.attempt("256 rows", too_large), bench.attempt("64 rows", lambda: {"x": 1.0})
    reason = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 TiB"
    assert bad == {"case": "256 rows", "error": reason} and good == {"case": "64 rows", "x": 1.0}
    assert bench.failures == [f"256 rows: {reason}"]
    # The worst of what came is not the worst of all.
    assert extreme(min, [good, bad], "x") is None and extreme(min, [good], "x") == 1.0
    assert extreme(min, [], "x") is None and steps.furthest([{"r": 0.7}, {"r": 1.1}], "r") == (
        pytest.approx(0.3)
    )


def test_an_item_that_fails_leaves_its_row(monkeypatch):
    def broken(bench: Bench):
        raise ValueError("no such thing")

    monkeypatch.setitem(items.ITEMS, "decode", broken)
    row = items.measure("decode", tiny())
    assert row["error"] == "ValueError: no such thing" and row.keys() == KEYS
    assert row["command"] == "python -m benchmarks.gpu --only decode --tiny --device cpu"


def test_an_item_that_is_killed_leaves_the_cases_that_had_ended(monkeypatch, tmp_path):
    def killed(bench: Bench):
        bench.attempt("64 rows", lambda: {"x": 1.0})
        raise SystemExit(9)  # caught by nobody

    monkeypatch.setitem(items.ITEMS, "decode", killed)
    path = tmp_path / "row.json"
    with pytest.raises(SystemExit):
        command.run_item(command.read_args(["--tiny", "--only", "decode", "--row", str(path)]))
    row = read_row(path)
    assert row["numbers"] == {"cases": [{"case": "64 rows", "x": 1.0}]} and row["seconds"] is None
    assert [file.name for file in tmp_path.iterdir()] == ["row.json"]


def test_a_device_that_an_item_has_upset_does_not_take_its_cases(monkeypatch):
    """After an illegal access each call of CUDA fails, also the one that gives memory back."""

    def upset(bench: Bench):
        bench.attempt("64 rows", lambda: {"x": 1.0})
        monkeypatch.setattr(Bench, "forget", lambda bench: 1 / 0)
        bench.attempt("128 rows", lambda: {"x": 2.0})

    monkeypatch.setitem(items.ITEMS, "decode", upset)
    row = items.measure("decode", tiny())
    assert [case["x"] for case in row["numbers"]["cases"]] == [1.0, 2.0]
    assert row["error"].startswith("ZeroDivisionError")


# -- rows ----------------------------------------------------------------------------------------


def a_row(**changes) -> dict:
    check = as_row(Check("share", 0.4, 0.6, True, 0.5))
    row = {key: None for key in KEYS} | {"item": "decode", "scale": "full", "checks": [check]}
    return row | {"card": {"name": "NVIDIA H100 80GB HBM3", "memory_gb": 85.0}} | changes


@pytest.mark.parametrize(
    ("must", "aim", "at_least", "value", "met"),
    [
        (0.4, 0.6, True, 0.6, "aim"),
        (0.4, 0.6, True, 0.5, "must"),
        (0.4, 0.6, True, 0.39, "NO"),
        (8.0, 6.0, False, 5.9, "aim"),
        (8.0, None, False, 8.0, "must"),
        (8.0, 6.0, False, 8.1, "NO"),
        (0.4, 0.6, True, None, "not measured"),
        (None, None, True, 3.0, "-"),
    ],
)
def test_verdicts(must, aim, at_least, value, met):
    assert Check("x", must, aim, at_least, value).met == met


def test_a_row_is_written_and_read(tmp_path):
    row = a_row()
    path = tmp_path / "gpu" / file_of(row)
    write_row(path, row)
    assert path.name == "decode.nvidia-h100-80gb-hbm3.json" and read_row(path) == row
    assert file_of(a_row(scale="quick")) == "decode.nvidia-h100-80gb-hbm3.quick.json"
    line = table([row]).splitlines()[1]
    assert line.split() == ["decode:", "share", ">=", "0.4", ">=", "0.6", "0.5", "must"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda row: row.pop("commit"), "keys commit"),
        (lambda row: row.update(extra=1), "keys extra"),
        (lambda row: row["checks"][0].pop("must"), "keys must"),
        (lambda row: row["checks"][0].update(met="aim"), "share is called 'aim'"),
        (lambda row: row.update(checks=3), "TypeError"),
    ],
)
def test_what_is_no_row_is_refused(tmp_path, spoil, says):
    row = a_row()
    spoil(row)
    write_row(tmp_path / "row.json", row)
    with pytest.raises(DataError, match=says):
        read_row(tmp_path / "row.json")
    (tmp_path / "row.json").write_text("{")
    with pytest.raises(DataError, match="JSONDecodeError"):
        read_row(tmp_path / "row.json")


def test_rows_that_were_filed_are_rows_of_real_measurements():
    for path in sorted((ROOT / "results" / "gpu").glob("*.json")):
        row = read_row(path)
        assert row["scale"] != "tiny" and row["driver"] and file_of(row) == path.name


# -- the command ---------------------------------------------------------------------------------


def run(*flags: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "benchmarks.gpu", *flags]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_without_a_gpu_one_line_and_nothing_filed(capsys, tmp_path):
    assert command.main(["--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1
    assert "no CUDA GPU" in said.err and "--tiny" in said.err and not list(tmp_path.iterdir())


def test_a_cpu_is_for_tiny_alone(capsys):
    with pytest.raises(SystemExit):
        command.main(["--device", "cpu"])
    assert "with --tiny alone" in capsys.readouterr().err


def test_tiny_rows_are_filed_only_where_that_is_asked_for():
    assert command.read_args(["--tiny"]).out is None
    assert command.read_args(["--quick"]).out == ROOT / "results" / "gpu"


def test_the_command_measures_in_another_process_and_files_a_row(tmp_path):
    done = run("--tiny", "--only", "training", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.iterdir()
    row = read_row(path)
    assert path.name.endswith(".tiny.json") and row["item"] == "training"
    assert "TINY" in done.stdout and "MFU" in done.stdout and "FAILED" not in done.stdout
    assert json.loads(path.read_text())["commit"] == row["commit"]


def test_a_process_that_dies_leaves_its_row_and_the_others_run(capsys):
    """Killed from outside, as by a machine without memory: what it wrote first is the row."""

    def dies(line, **unused):
        path = Path(line[line.index("--row") + 1])
        item = line[line.index("--only") + 1]
        row = items.beginning(item, tiny())
        if item == "plan":  # not even a beginning
            return subprocess.CompletedProcess(line, 1)
        if item != "decode":
            row |= {"error": None, "seconds": 1.0, "checks": a_row()["checks"]}
        write_row(path, row)
        return subprocess.CompletedProcess(line, -9 if item == "decode" else 0)

    assert command.main(["--tiny", "--only", "decode", "plan", "training"], dies) == 1
    said = capsys.readouterr().out
    assert "FAILED decode: ended with status -9 before its row was whole" in said
    assert "FAILED plan: ended with status 1 before its row was whole" in said
    assert "training: share" in said and "FAILED training" not in said


@pytest.mark.parametrize(("numbers", "filed"), [({"cases": [{"case": "64 rows"}]}, 1), ({}, 0)])
def test_a_command_that_is_stopped_files_what_there_is_and_ends(capsys, tmp_path, numbers, filed):
    """As by Ctrl-C, or by SIGTERM where the time of a rented machine is over."""

    def stopped(line, **unused):
        path = Path(line[line.index("--row") + 1])
        write_row(path, items.beginning("decode", tiny()) | {"numbers": numbers})
        raise KeyboardInterrupt

    flags = ["--tiny", "--only", "decode", "training", "--out", str(tmp_path)]
    assert command.main(flags, stopped) == 1
    said = capsys.readouterr().out
    assert "FAILED decode: stopped before its row was whole" in said and "training" not in said
    assert [read_row(path)["numbers"] for path in tmp_path.iterdir()] == [numbers] * filed
