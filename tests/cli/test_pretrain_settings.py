"""What `aha pretrain` understands, and the plan that its dry run prints."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe, packaged_recipes
from aha.core.errors import ConfigError
from aha.corpus.bases import BASES, TraceMix
from aha.model.tokenizer import build_tokenizer
from aha.model.transformer import Transformer
from aha.plan.machines import load_cards
from aha.pretrain.settings import make_job, parse_mix
from aha.tasks.countdown import Countdown


def plan_of(text: str) -> tuple[dict, dict[str, list[str]]]:
    """The settings, and the words of each line of the plan below them by its first."""
    settings, end = json.JSONDecoder().raw_decode(text)
    return settings, {line.split()[0]: line.split() for line in text[end:].splitlines() if line}


@pytest.mark.parametrize("name", BASES)
def test_a_named_base_is_ordered_as_it_is(name):
    base, job = BASES[name], make_job(name)
    assert (job.shape, job.cfg, job.out) == (base.shape, base.cfg, base.folder)
    with torch.device("meta"):
        model = Transformer(job.architecture)
    assert model.num_parameters() == job.shape.parameters


def test_flags_change_one_thing_each():
    job = make_job(
        "10m",
        Path("other"),
        {"hidden_size": 48, "intermediate_size": None, "num_hidden_layers": 2},
        {"tokens": 5, "lr": None, "seed": 3},
        "search=0.2",
    )
    base = BASES["10m"]
    assert (job.shape.C, job.shape.I, job.shape.L) == (48, base.shape.I, 2)
    assert (job.cfg.tokens, job.cfg.lr, job.cfg.seed) == (5, base.cfg.lr, 3)
    assert job.cfg.mix.search == 0.2 and job.cfg.mix.numbers == base.cfg.mix.numbers
    assert job.out == Path("other")


def test_a_mix_begins_with_the_rates_of_before():
    before = TraceMix(drill=0.9)
    found = parse_mix("search=0.1,max_lines=7", before)
    assert (found.drill, found.search, found.max_lines) == (0.9, 0.1, 7)
    assert parse_mix("", before) == before
    for text in ("numbers=3", "search", "search=much", "max_lines=1.5"):
        with pytest.raises(ConfigError):
            parse_mix(text, before)


def test_a_dry_run_prints_settings_and_plan_and_writes_nothing(aha, tmp_path):
    words = ("--layers", 1, "--hidden", 32, "--mlp", 48, "--mix", "backtrack=0,search=0.2")
    done = aha("pretrain", "out", *words, "--tokens", 5_000, "--dry-run")
    assert done.code == 0, done.err
    shown, lines = plan_of(done.out)
    assert shown["model"]["num_hidden_layers"] == 1 and shown["parameters"] < 20_000
    assert shown["pretraining"]["tokens"] == 5_000
    mix = shown["pretraining"]["mix"]
    assert (mix["backtrack"], mix["search"]) == (0, 0.2)
    assert set(load_cards()[1]) < set(lines) and {"weights", "activations", "peak"} < set(lines)
    assert list(tmp_path.iterdir()) == []


def test_ten_million_parameters_and_their_rl_cost_about_a_dollar(aha):
    """All in, on the cards whose price the recipe quotes; from shapes and the layers' time on an
    H100, which made the plan of that card dearer than a dollar."""
    recipe = find_recipe("scratch-10m").read_text()
    done = aha("pretrain", "--shape", "10m", "--dry-run")
    shown, lines = plan_of(done.out)
    assert shown["parameters"] == BASES["10m"].shape.parameters
    rl = {row["card"]: row for row in json.loads(aha("plan", "scratch-10m", "--json").out)["cards"]}
    for card, most in (("rtx-4090", 0.95), ("h100-80gb", 1.5)):
        number, unit = lines[card][-2:]
        base = float(number) / 100 if unit == "cents" else float(unit.removeprefix("$"))
        assert 0.1 < base < 0.7 and 0.05 < rl[card]["usd"] and base + rl[card]["usd"] < most
        assert rl[card]["fits"]
        assert re.search(rf"{card} .* \${base:.2f} \+ \${rl[card]['usd']:.2f}", recipe)


def test_a_price_and_writers_of_ones_own_count(aha):
    words = ("pretrain", "--shape", "10m", "--dry-run")
    free = plan_of(aha(*words, "--usd-per-hour", 0, "--watts", 1000).out)[1]
    hours, kwh, price = free["h100-80gb"][4:7]
    assert price == "0.00" and hours == kwh
    slow, quick = (plan_of(aha(*words, "--writers", n).out)[1]["h100-80gb"][3] for n in (1, 8))
    assert 4 * int(slow.replace(",", "")) < int(quick.replace(",", ""))


def test_a_dry_run_has_the_memory_of_the_ranks_that_a_run_takes(aha):
    """The tiny base took two on two cores, and one was planned."""
    ranks = {}
    for words in (
        (),
        ("--ranks", 1),
        ("--ranks", 4),
        ("--shape", "10m"),
        ("--batch-tokens", 2_000),
    ):
        out = aha("pretrain", "--dry-run", *words).out
        (ranks[words],) = re.findall(r"ranks: (\d+)$", out, re.MULTILINE)
    assert list(map(int, ranks.values())) == [2, 1, 4, 1, 1]


def test_a_dry_run_needs_no_torch():
    code = (
        "import sys; sys.argv = ['aha', 'pretrain', '--dry-run']; from aha.cli.main import run; "
        "run(); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr


# -- the recipe that such a base is made for -------------------------------------------------


def test_the_recipe_starts_where_pretraining_leaves_its_model():
    cfg, base = load_recipe(find_recipe("scratch-10m")), BASES["10m"]
    assert Path(cfg.model.path) == base.model_folder
    assert cfg.usd_per_hour is cfg.watts is None  # the machine's own
    # Positions for the longest prompt and a completion of full length.
    tokenizer, task = build_tokenizer(), Countdown(cfg.task.numbers)
    drawn = zip(range(200), task.problems("train", 0), strict=False)
    longest = max(len(tokenizer.encode(task.ask(problem))) for _, problem in drawn)
    assert cfg.task.numbers == (3, 4) and cfg.task.verifier == "strict"
    room = make_job("10m").architecture.max_position_embeddings
    assert longest + cfg.rollout.max_new_tokens <= room and cfg.rollout.max_new_tokens == 1024


@pytest.mark.parametrize("recipe", packaged_recipes())
def test_every_recipe_can_be_planned_without_its_model(aha, recipe):
    found = json.loads(aha("plan", recipe, "--json").out)
    assert found["parameters"] > 0 and len(found["cards"]) == len(load_cards()[1])


def test_a_base_that_is_not_made_is_an_error_with_its_command(aha, tmp_path):
    done = aha("train", "scratch-10m", "--name", "early")
    assert done.code == 2 and done.err.count("\n") == 1
    assert "runs/base-10m/model" in done.err and "fix: aha pretrain --shape 10m" in done.err
    assert list(tmp_path.iterdir()) == []
    # What the run refuses, its trial refuses too.
    trial = aha("train", "scratch-10m", "--dry-run")
    assert (trial.code, trial.err, trial.out) == (2, done.err, "")


def test_the_doctor_says_so_and_looks_at_the_reward(aha):
    done = aha("doctor", "scratch-10m", "--json")
    found = {one["check"]: one for one in json.loads(done.out)["findings"]}
    assert done.code == 1 and found["base_model"]["level"] == "fail"
    assert found["base_model"]["fix"] == "aha pretrain --shape 10m"
    others = {name: one["level"] for name, one in found.items() if name != "base_model"}
    assert others["reward_paid"] == "ok" and set(others.values()) == {"ok"}
