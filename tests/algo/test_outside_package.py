"""A third party's algorithms, installed and used without a change to this program: an own loss with
a `tau`, an own advantage without groups. Checks, plan and training follow the stranger's facts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CODE = '''
"""Algorithms of somebody else."""

from aha.algo.advantages import advantage
from aha.algo.losses import loss


@advantage("half_way", group=False)
def half_way(rewards_PG):
    """R - 1/2: a baseline that needs neither a group nor a step."""
    return rewards_PG - 0.5


@loss("anchored", ratio=False, every_row=True)
def anchored(logprobs_BT, old_logprobs_BT, advantages_BT, tau=0.5):
    """-A logp + tau (logp - old)^2."""
    return -advantages_BT * logprobs_BT + tau * (logprobs_BT - old_logprobs_BT).square()
'''

# What an installer would have left beside the module.
METADATA = {
    "METADATA": "Metadata-Version: 2.1\nName: stranger-algorithms\nVersion: 1.0\n",
    "entry_points.txt": "[aha.algorithms]\nstranger = stranger_algorithms\n",
    "INSTALLER": "pip\n",
    "RECORD": "stranger_algorithms.py,,\n",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder of installed packages with the stranger's in it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "stranger_algorithms.py").write_text(CODE)
    info = folder / "stranger_algorithms-1.0.dist-info"
    info.mkdir()
    for name, text in METADATA.items():
        (info / name).write_text(text)
    return folder


# Commands one after the other; of each, its exit code and what it said.
MANY = """
import contextlib, io, json, sys
from aha.cli.main import run
said = []
for words in json.loads(sys.argv[1]):
    sys.argv, code, out, err = ["aha", *words], 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run()
        except SystemExit as exit:
            code = exit.code or 0
    said.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(said))
"""


def python(site: Path, folder: Path, *words: str, installed: bool = True):
    """A Python of its own, as after `pip install stranger-algorithms`."""
    paths = [str(site)] if installed else []
    env = os.environ | {"PYTHONPATH": os.pathsep.join([*paths, str(ROOT / "src")])}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def aha(site: Path, folder: Path, *words: str, installed: bool = True):
    return python(site, folder, "-m", "aha", *words, installed=installed)


# In place of the demo's own: groups of equal rewards dropped, and a KL.
PLAIN = ("--algo.zero_variance", "keep", "--algo.kl", "none", "--algo.kl_coef", "0.001")
OWN = ("--algo.loss", "anchored", "--algo.tau", "0.2", "--algo.advantage", "half_way")
SMALL = ("--rollout.group_size", "1", "--rollout.prompts", "8", "--rollout.max_new_tokens", "32")
FEW = ("--steps", "2", "--eval.every", "0", "--eval.final", "0", "--checkpoint_every", "0")


def test_it_trains_two_steps_and_the_run_needs_it(site, tmp_path):
    done = aha(site, tmp_path, "train", "demo", "--name", "own", *PLAIN, *OWN, *SMALL, *FEW)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "own"
    algo = json.loads((run / "config.json").read_text())["algo"]
    assert (algo["loss"], algo["tau"], algo["advantage"]) == ("anchored", 0.2, "half_way")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2] and all(row["grad_norm"] > 0 for row in rows)
    # Without the package the run's config names algorithms that nobody knows.
    gone = aha(site, tmp_path, "train", "--resume", str(run), installed=False)
    assert gone.returncode == 2 and "config.json: algo.advantage = 'half_way'" in gone.stderr


REFUSED = [
    # Its advantage needs no group, ours does.
    ((*OWN[:4], *SMALL), "group_size 1 with the advantage 'dr_grpo'"),
    # Its loss reads tau, and is named among those that do.
    (("--algo.tau", "0.2"), "algo.loss quadratic or anchored"),
    # ... but does not clip, has no ratio, and so takes each rollout for one update.
    ((*OWN, "--algo.clip_high", "0.3"), "algo.clip_high 0.3 with algo.loss 'anchored'"),
    ((*OWN, "--algo.updates", "2"), "updates > 1 with the loss 'anchored'"),
    # Without a group baseline, groups of equal rewards teach.
    ((*OWN, "--algo.zero_variance", "drop"), "with 'half_way', without a group baseline"),
    (("--algo.loss", "anchord"), "did you mean 'anchored'?"),
]
# A correction goes with a loss that has no ratio, and the plan counts every row.
ICEPOP = ("--algo.correction", "icepop")
PLANS = [("--algo.loss", "anchored", *ICEPOP), ICEPOP]


@pytest.fixture(scope="module")
def said(site, tmp_path_factory) -> list:
    """What the commands of REFUSED and of PLANS say, all in one process."""
    commands = [["train", "demo", *PLAIN, *words, "--dry-run"] for words, _ in REFUSED]
    commands += [["plan", "demo", "--json", *PLAIN, *words] for words in PLANS]
    done = python(site, tmp_path_factory.mktemp("said"), "-c", MANY, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("place", range(len(REFUSED)), ids=[message for _, message in REFUSED])
def test_the_checks_follow_its_facts(said, place):
    code, _, err = said[place]
    assert code == 2 and REFUSED[place][1] in err, err


def test_the_plan_counts_every_row_of_a_loss_that_reads_every_row(said):
    corrected, ours = (json.loads(out)["cards"][0]["hours"] for _, out, _ in said[len(REFUSED) :])
    assert corrected > 1.1 * ours
