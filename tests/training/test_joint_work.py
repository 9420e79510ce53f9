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


def test_more_ranks_than_gpus_are_refused_before_there_is_a_folder():
    more = torch.cuda.device_count() + 2
    for refuse in (
        lambda: ranks_of_run(more, torch.device("cuda"), Path("run"), 5.0),
        lambda: check_setting(more, on("cuda", more)),
    ):
        with pytest.raises(ConfigError, match=f"{more} ranks|--ranks {more}|no NCCL") as refused:
            refuse()
        assert refused.value.fix.endswith("--model.device cpu")
    check_setting(more, on("cpu", more))
    assert ranks_of_run(1, torch.device("cuda"), Path("run"), 5.0).size == 1


def on(device: str, prompts: int) -> RunConfig:
    cfg = config(prompts)
    return cfg.model_copy(update={"model": cfg.model.model_copy(update={"device": device})})


def test_ranks_on_apples_gpu_are_refused_by_name():
    with pytest.raises(ConfigError, match="several ranks on Apple GPUs"):
        check_setting(2, on("mps", 4))


def test_the_ranks_of_a_run_are_not_started_yet():
    ranks = ranks_of_run(2, torch.device("cpu"), Path("runs/mine"), 5.0)
    assert (ranks.world.rank, ranks.world.size) == (0, 2) and ranks.ranks == []
    assert "aha train --resume runs/mine" in ranks.again
    assert ranks.late_s == 95.0
