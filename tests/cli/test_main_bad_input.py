"""Bad input: one line on stderr, exit code 2, and not a file touched."""

import subprocess
import sys
from pathlib import Path

import pytest

from ..tiny import tiny_folder

# What is typed -> what the line must say. MODEL is a good folder with 160 positions.
BAD = """
train nowhere -> no recipe 'nowhere'
train none.toml -> none.toml
plan Qwen2.5-3B -> a model comes after a recipe: RECIPE --model Qwen2.5-3B
train MODEL -> a model comes after a recipe: RECIPE --model
train bad.toml -> bad.toml
train demo --grop_size 3 -> unknown option --grop_size
train demo --rollout.grop_size 3 -> did you mean --rollout.group_size?
train demo --steps -> --steps has no value
train demo steps 3 -> 'steps' without an option
train demo --rollout.prompts 0 -> rollout.prompts = 0
train demo --launcher slurm -> one of local, torchrun, ray
train demo --launcher torchrun -> the environment has no RANK
train demo --resume auto -> --resume auto without a recipe and a --name
train --name first --resume auto -> --resume auto without a recipe and a --name
plan demo --gpus 0 -> --gpus 0
plan demo --gpus 9 --rollout.prompts 8 -> 9 ranks for 8 groups
plan demo --nodes 2.5 -> --nodes '2.5'
plan demo --network 0 -> --network 0
train demo --rollout.group_size 1 -> group_size 1
train demo --rollout.group_size 0 -> group_size = 0
train demo --rollout.top_k 50 -> log-probs of a cut distribution
train demo --algo.loss gspo -> which counts its length once more
train dr_grpo --algo.reference_reset 100 -> with algo.kl 'none'
train demo --critic.lr 1e-4 -> which has no critic
train demo --algo.entropy_control kl_cov -> nothing to hold
train demo --algo.curriculum pools --algo.pool 8 -> fills a step
train demo --optim.lr fast -> optim.lr = 'fast'
train demo --model.path nowhere -> 'nowhere'
train demo --model.path notes -> no model in notes
train demo --model.path broken -> broken
train demo --model.path MODEL -> 160 positions
train demo SMALL --name taken -> taken
train demo SMALL --task.data none.jsonl -> none.jsonl
train demo SMALL --task.data empty.jsonl -> empty
train demo SMALL --task.data bad.jsonl -> row 2
train demo SMALL --algo.advantage grop -> 'grop'
train demo SMALL --algo.loss ppo -> 'ppo'
train demo --ranks many -> auto, or a number from 1 on
demo --ranks 0 -> --ranks '0'
train demo --ranks 9999 --rollout.prompts 9999 -> cores
train demo --ranks 5 --rollout.prompts 4 -> fix: --ranks 4, or --rollout.prompts 5
train demo --ranks 5 --rollout.prompts 4 --dry-run -> 5 ranks for 4 groups
train --resume nowhere --ranks -2 -> --ranks '-2'
train demo --shard on -> --shard on with one rank
train demo --shard perhaps -> --shard
train demo --ranks 2 --shard on --optim.state cpu -> fix: --optim.state device, or --shard off
train --resume nowhere -> no run in nowhere
train --resume runs/taken -> no run in
train demo --resume runs/taken -> --resume
eval nowhere -> 'nowhere'
eval notes -> no model in notes
eval broken -> broken
eval MODEL --n 0 -> --n
eval MODEL --n 2 -> fix: --max-new-tokens 14
EVAL --split holdout -> --split
EVAL --numbers 9 -> sizes from 2 to 6
eval MODEL --n 2 --max-new-tokens 0 -> max_new_tokens 0
EVAL --group-size 0 -> group_size 0
EVAL --temperature -1 -> temperature -1
EVAL --out precious.txt -> exists already
EVAL --out no/where.jsonl -> no folder no
EVAL --data none.jsonl -> none.jsonl
EVAL --data empty.jsonl -> empty
EVAL --data bad.jsonl -> row 2
ask 3 --target 3 --model MODEL -> 2 to 6
ask 3 0 --target 3 --model MODEL -> positive
ask 3 7 -> --target
ask 3 seven --target 3 -> seven
problems --n -1 -> --n
problems --numbers 1 -> sizes from 2 to 6
problems --data none.jsonl -> none.jsonl
baseline --n 0 -> --n
train demo --algo.loss nope --dry-run -> aha: algo.loss = 'nope'
config show nowhere -> no recipe 'nowhere'
config show demo --optim.lrr 1 -> optim.lr
pretrain out --mix search=x --dry-run -> search=x
pretrain out --mix serch=1 --dry-run -> serch=1
pretrain out --hidden 30 --dry-run -> hidden_size 30
pretrain out --layers 0 --dry-run -> num_hidden_layers 0
pretrain out --shape 11m --dry-run -> one of tiny, 10m
pretrain out --tokens 0 -> Must be >= 1
pretrain out --writers -1 -> Must be >= 0
pretrain out --ranks many --dry-run -> auto, or a number from 1 on
pretrain out --ranks 0 --dry-run -> --ranks '0'
pretrain out --watts lots -> lots
pretrain out --lr -1 -> Must be >= 0
pretrain out --usd-per-hour -1 -> Must be >= 0
train scratch-10m -> fix: aha pretrain --shape 10m
fly -> fly
"""
SHORT = {
    "SMALL": "--model.path MODEL --rollout.max_new_tokens 24 --eval.final 4 --steps 1",
    "EVAL": "eval MODEL --n 2 --max-new-tokens 9",
}


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def furnished(tmp_path) -> Path:
    """A folder with good and bad things in it, and something to lose."""
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    (tmp_path / "runs" / "taken" / "precious.txt").write_text("mine")
    (tmp_path / "precious.txt").write_text("mine")
    (tmp_path / "notes").mkdir()
    (tmp_path / "bad.toml").write_text("steps = ")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "bad.jsonl").write_text('{"nums": [3, 7], "target": 10}\n{"nums": "3 7"}\n')
    broken = tiny_folder(tmp_path / "broken") / "model.safetensors"
    broken.write_bytes(broken.read_bytes()[:-100])
    return tmp_path


@pytest.mark.parametrize("line", BAD.strip().splitlines())
def test_bad_input_is_one_line_and_exit_code_2(aha, model, furnished, line):
    command, said = line.split(" -> ")
    for short, long in SHORT.items():
        command = command.replace(short, long)
    before = files_below(furnished)

    done = aha(*command.replace("MODEL", str(model)).split())

    assert done.code == 2 and done.out == ""
    assert done.err.startswith("aha: ") and said in done.err
    assert done.err.count("\n") == 1, done.err
    assert files_below(furnished) == before, "nothing is written or changed"


def test_a_process_of_its_own_ends_alike(tmp_path):
    """The entry point itself, not through this process."""
    words = [sys.executable, "-m", "aha", "train", "demo", "--stps", "3"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "did you mean --steps?" in done.stderr
