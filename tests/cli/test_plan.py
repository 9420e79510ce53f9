"""`aha plan`: the table, the JSON, prices of one's own, and no torch."""

import json
import subprocess
import sys
from dataclasses import replace

from aha.machine.host import usable_cores

from ..plan.test_calibration import CPU, measured_on
from ..tiny import tiny_folder

NAMED = "base_model_name_or_path"


def test_a_plan_is_a_table_with_what_fits(aha):
    done = aha("plan", "demo", "--model", "Qwen2.5-1.5B")
    assert done.code == 0 and done.err == ""
    for words in ("1,543.7 M parameters", "optimiser", "kv cache", "rtx-4060-laptop", "h200-141gb"):
        assert words in done.out
    assert "prices of 2026-11" in done.out and "160 tokens are assumed" in done.out


def test_as_json_with_cards_of_ones_own(aha, tmp_path):
    card = "memory = 8, tflops = 10, bandwidth = 100, watts = 100, usd_per_hour = 2, "
    card += "train = 0.5, decode = 0.5, layer_us = 9"
    text = f'as_of = "today"\n[cards]\nmine = {{ {card} }}\n'
    (tmp_path / "mine.toml").write_text(text)
    words = ("plan", "demo", "--cards", "mine.toml", "--json", "--steps", 50)
    found = json.loads(aha(*words).out)
    (row,) = found["cards"]
    assert found["prices_as_of"] == "today" and row["fits"] and row["advice"] == ""
    assert abs(row["usd"] - 2 * row["hours"]) < 1e-9 > abs(row["kwh"] - 0.1 * row["hours"])
    assert 0 < found["peak_gb"] < sum(found["memory_gb"].values()) < 1
    # Both tests cost the same whatever the number of steps, so hours are a line and not a ratio.
    twice, thrice = (json.loads(aha(*words[:-1], n).out)["cards"][0]["hours"] for n in (100, 150))
    assert thrice - twice > 0 and abs(thrice - 2 * twice + row["hours"]) < 1e-9
    assert row["hours"] < twice < 2 * row["hours"]
    big = json.loads(aha(*words, "--model", "Qwen2.5-7B").out)["cards"][0]
    assert not big["fits"] and big["advice"]


def test_a_small_model_on_a_cpu_is_planned_for_the_ranks_that_it_takes(aha):
    """As `aha train` would start it on the two cores of that row."""
    done = json.loads(aha("plan", "demo", "--json").out)
    rows = {row["card"]: row for row in done["cards"]}
    assert rows["cpu-2-cores"]["ranks"] == 2 and rows["rtx-4090"]["ranks"] == 1
    two = json.loads(aha("plan", "demo", "--gpus", 2, "--json").out)["cluster"]["rows"]
    (simulated,) = (row for row in two if row["card"] == "cpu-2-cores")
    assert abs(rows["cpu-2-cores"]["hours"] - simulated["hours"]) < 1e-9
    few = json.loads(aha("plan", "demo", "--rollout.prompts", 7, "--json").out)["cards"]
    assert {row["ranks"] for row in few} == {1}  # too few groups for two ranks
    assert "on CPUs 2 ranks share the work" in aha("plan", "demo").out
    assert "share the work" not in aha("plan", "demo", "--model", "Qwen2.5-1.5B").out


def test_a_machine_that_was_measured_has_a_rank_for_each_of_its_threads(aha, tmp_path):
    for threads in (1, 2):
        machine = replace(measured_on(CPU), threads=threads)
        machine.write(tmp_path / f"{threads}.json")
        done = aha("plan", "demo", "--calibration", f"{threads}.json", "--json")
        row = json.loads(done.out)["cards"][0]
        assert row["measured"] and row["ranks"] == min(threads, usable_cores())
    shown = aha("plan", "demo", "--calibration", "1.json").out
    assert "ranks (1 on this machine, 2 on cpu-2-cores, 2 on cpu-2-cores-avx2) share" in shown
    assert "'this machine' is measured" in shown and "rows are not" not in shown


def test_several_ranks_add_their_steps_and_what_they_assume(aha):
    words = ("plan", "demo", "--gpus", 2, "--nodes", 2)
    done = aha(*words)
    assert done.code == 0 and done.out.startswith(aha("plan", "demo").out)
    for text in ("2 x 2 ranks", "all-reduce", "speedup", "assumed, not measured:", "10 Gbit/s"):
        assert text in done.out
    record = json.loads(aha(*words, "--network", 100, "--json").out)
    cluster = record["cluster"]
    assert (cluster["gpus"], cluster["nodes"], cluster["network"]) == (2, 2, 100)
    assert [row["card"] for row in cluster["rows"]] == [row["card"] for row in record["cards"]]
    for row in cluster["rows"]:
        parts = ("rollout_s", "gather_s", "train_s", "all_reduce_s", "update_s")
        assert abs(row["step_s"] - sum(row[part] for part in parts)) < 1e-9
        assert 0 < row["waiting"] < 1 and row["speedup"] < 4
        assert 0 < row["shard_gb"] < row["rank_gb"] and row["fits"] == "whole"
    assert "cluster" not in json.loads(aha("plan", "demo", "--json").out)


def test_a_plan_for_several_ranks_says_where_shards_are_needed(aha):
    sizes = ("--model", "Qwen2.5-7B", "--rollout.prompts", 8, "--optim.recompute", "true")
    rows = json.loads(aha("plan", "demo", "--gpus", 8, *sizes, "--json").out)["cluster"]["rows"]
    fits = {row["card"]: row["fits"] for row in rows}
    assert fits["h100-80gb"] == "in shards" and fits["rtx-3090"] == "no"
    # What one rank has is no matter of their number; the shards are.
    words = ("plan", "demo", "--gpus", 2, *sizes, "--optim.state", "cpu")
    rows = json.loads(aha(*words, "--json").out)["cluster"]["rows"]
    assert {row["shard_gb"] for row in rows} == {None}
    assert "  no" in aha(*words).out


def test_prompts_and_tests_are_those_of_the_task(aha):
    """160 tokens were planned for the 74 of this recipe, for a model that is not on the disk."""
    plan = json.loads(aha("plan", "smollm2-sums", "--json").out)
    assert 0.85 * 74 < plan["prompt_tokens"] < 1.15 * 74
    assert plan["prompt_tokens_from"].startswith("estimated from their words")
    assert plan["held_out"] == [40, 71]
    more = ("--eval.problems", 500, "--eval.final", 500)
    assert json.loads(aha("plan", "smollm2-sums", *more, "--json").out)["held_out"] == [87, 71]
    assert (
        "validations of 87 problems and two tests of 71" in aha("plan", "smollm2-sums", *more).out
    )


def test_a_model_that_is_here_is_planned_with_its_shape_and_its_tokenizer(aha, tmp_path):
    """A run too, whose own config.json is none of a model."""
    run = tmp_path / "runs" / "own"
    tiny_folder(run / "model")
    (run / "config.json").write_text('{"steps": 3}')
    (run / "metrics.jsonl").touch()
    for name in ("runs/own", "runs/own/model"):
        done = aha("plan", "demo", "--model", name, "--task.template", "r1", "--json")
        assert done.code == 0, done.err
        plan = json.loads(done.out)
        assert plan["prompt_tokens_from"] == "counted" and plan["prompt_tokens"] > 300


def test_an_adapter_is_planned_with_the_shape_and_the_tokenizer_of_its_base(aha, tmp_path):
    """As a run with LoRA leaves one; also on top of another adapter."""
    base = tiny_folder(tmp_path / "base")
    run = tmp_path / "runs" / "lora"
    for folder, below in ((run / "model", base), (tmp_path / "second", run)):
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text(json.dumps({NAMED: str(below)}))
    (run / "metrics.jsonl").touch()
    words = ("--task.template", "r1", "--json")
    whole = json.loads(aha("plan", "demo", "--model", "base", *words).out)
    for name in ("runs/lora", "second"):
        done = aha("plan", "demo", "--model", name, *words)
        assert done.code == 0, done.err
        assert json.loads(done.out) | {"model": "base"} == whole
    (base / "config.json").unlink()
    (tmp_path / "second" / "adapter_config.json").write_text(json.dumps({NAMED: "Qwen2.5-3B"}))
    assert json.loads(aha("plan", "demo", "--model", "second", *words).out)["parameters"] > 3e9
    assert "no shape of the model" in aha("plan", "demo", "--model", "base").err
    for gone in ("runs/lora", str(tmp_path / "gone")):  # itself, and nowhere
        (run / "model" / "adapter_config.json").write_text(json.dumps({NAMED: gone}))
        done = aha("plan", "demo", "--model", "runs/lora")
        assert done.code == 2 and f"names the base {gone!r}, where no model is" in done.err
    (run / "model" / "adapter_config.json").write_text("{}")
    assert "names no base" in aha("plan", "demo", "--model", "runs/lora").err


def test_bad_input_is_one_line(aha):
    for words in (
        ("nowhere",),
        ("demo", "--model", "GPT-5"),
        ("demo", "--cards", "none.toml"),
        ("demo", "--mean-tokens", 0),
    ):
        done = aha("plan", *words)
        assert done.code == 2 and done.err.count("\n") == 1, done.err


def test_a_plan_needs_no_torch():
    code = (
        "import sys; sys.argv = ['aha', 'plan', 'demo']; from aha.cli.main import run; run(); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr
