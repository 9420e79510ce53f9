"""The environment of a launcher: what is taken from it, and each contradiction refused."""

import pytest

from aha.core.errors import ConfigError
from aha.dist.rank_place import RankPlace, launcher_of, place_of, refuse_copies

ENV = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node-0",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "2",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}


def test_the_place_of_a_rank():
    place = place_of(ENV)
    assert place == RankPlace(3, 4, 1, 2, "node-0", 29500, 2, True)
    assert place.address == "node-0:29500" and not place.on_one_machine
    bare = {name: value for name, value in ENV.items() if not name.startswith("TORCH")}
    assert place_of(bare) == RankPlace(3, 4, 1, 2, "node-0", 29500)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"RANK": "4"}, "RANK 4 with WORLD_SIZE 4"),
        ({"RANK": "-1"}, "RANK='-1'"),
        ({"RANK": "one"}, "RANK='one'"),
        ({"RANK": "²"}, "RANK='²'"),
        ({"RANK": ""}, "the environment has no RANK"),
        ({"WORLD_SIZE": "0"}, "RANK 3 with WORLD_SIZE 0"),
        ({"WORLD_SIZE": "9" * 500}, "WORLD_SIZE="),
        ({"LOCAL_RANK": "2"}, "LOCAL_RANK 2 with LOCAL_WORLD_SIZE 2"),
        ({"LOCAL_WORLD_SIZE": "5"}, "LOCAL_WORLD_SIZE 5 with WORLD_SIZE 4"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT 0"),
        ({"MASTER_PORT": "65536"}, "MASTER_PORT 65536"),
        ({"MASTER_ADDR": ""}, "no MASTER_ADDR"),
        ({"TORCHELASTIC_RESTART_COUNT": "x"}, "TORCHELASTIC_RESTART_COUNT='x'"),
    ],
)
def test_an_environment_that_contradicts_itself_is_refused(changes, words):
    with pytest.raises(ConfigError) as refused:
        place_of(ENV | changes)
    assert words in str(refused.value) and "torchrun --standalone" in refused.value.fix
    assert len(str(refused.value)) < 400


def test_the_launcher_of_a_command():
    assert launcher_of(None, None, {}) == launcher_of(None, 4, {}) == "local"
    assert launcher_of(None, None, ENV) == launcher_of("torchrun", 4, ENV) == "torchrun"
    assert launcher_of("ray", 2, {}) == "ray"
    # One process of torchrun is one process.
    alone = ENV | {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    assert launcher_of("local", 2, alone) == "local"


@pytest.mark.parametrize(
    ("name", "ranks", "env", "words"),
    [
        ("local", None, ENV, "--launcher local in one of '4' processes of torchrun"),
        ("ray", 2, ENV, "--launcher ray in one of '4' processes"),
        (None, 3, ENV, "--ranks 3, and torchrun has started 4 (WORLD_SIZE)"),
        ("torchrun", None, {}, "the environment has no RANK, WORLD_SIZE"),
    ],
)
def test_a_command_that_the_environment_contradicts_is_refused(name, ranks, env, words):
    with pytest.raises(ConfigError) as refused:
        launcher_of(name, ranks, env)
    assert words in str(refused.value)


def test_several_processes_of_another_command_are_refused():
    with pytest.raises(ConfigError, match="'4' processes of `aha lab` by torchrun"):
        refuse_copies("`aha lab`", ENV)
    refuse_copies("`aha lab`", {})
    refuse_copies("`aha lab`", ENV | {"WORLD_SIZE": "1"})
