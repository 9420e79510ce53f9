"""Numbers of ranks that cannot work are refused before anything is read; what can is not."""

from pathlib import Path

import pytest
import torch

from aha.core.config import RunConfig
from aha.core.errors import ConfigError
from aha.training.joint_work import check_setting, ranks_of_run


def config(prompts: int = 4, engine: str = "native") -> RunConfig:
    return RunConfig.model_validate({"rollout": {"prompts": prompts, "engine": engine}})


@pytest.mark.parametrize(
    ("ranks", "cfg", "words"),
    [
        (5, config(), "5 ranks for 4 groups"),
        (2, config(engine="vllm"), "--rollout.engine native"),
        (100_000, config(100_000), "fix: --ranks auto"),
    ],
)
def test_what_cannot_work_is_refused_and_the_fix_works(ranks, cfg, words):
    with pytest.raises(ConfigError, match=words):
        check_setting(ranks, cfg)
    check_setting(1, cfg)
    check_setting(4, config())


def test_a_gpu_has_one_rank():
    with pytest.raises(ConfigError, match="--model.device cpu"):
        ranks_of_run(2, torch.device("cuda"), Path("run"), 5.0)
    assert ranks_of_run(1, torch.device("cuda"), Path("run"), 5.0).size == 1


def test_the_ranks_of_a_run_are_not_started_yet():
    ranks = ranks_of_run(2, torch.device("cpu"), Path("runs/mine"), 5.0)
    assert (ranks.world.rank, ranks.world.size) == (0, 2) and ranks.ranks == []
    assert "aha train --resume runs/mine" in ranks.again
    assert ranks.late_s == 95.0
