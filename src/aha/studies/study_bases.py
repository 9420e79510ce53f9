"""The bases of the studies: made for one study, or made once for all of them.

Most studies begin with a model that calculates, answers by guesses and has never read a search
(`aha pretrain --shape guesses`). To learn to calculate is most of what a base costs, so there is
one such base, in the folder of that command: the first study that needs it makes it. Bases that
have to differ in what they have read go on from it, as a continued pre-training.
"""

import multiprocessing
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from aha.core.errors import ConfigError, RunError
from aha.corpus.bases import TraceMix
from aha.plan.pretrain_estimate import DOCUMENT_TOKENS, PretrainTokens, estimate_base
from aha.plan.speed import Card
from aha.pretrain.make_base import keep_settings
from aha.pretrain.settings import PretrainJob, make_job
from aha.studies.training_stages import Say, make_base

GUESSER = "guesses"  # of `aha pretrain --shape`
GUESS_TOKENS = 70  # of a document of a corpus without searches
# Time of two processes with a thread each over that of one with two, which the table of machines is
# fitted to. Measured: .84 for aha-tiny (its pretraining.json, two ranks); by processor time on a
# busy machine .68 for 4 million tokens of guesses.
ONE_THREAD = 0.65
START_SECONDS = 3.0  # of a cell: importing torch, opening models, drawing test problems


@lru_cache
def guesser() -> PretrainJob:
    """The base that has read no search. Its folder is below the working directory."""
    return make_job(GUESSER)


def goes_on_from_guesser(name: str, seed: int, mix: TraceMix, tokens: int) -> PretrainJob:
    """The job of a base that reads so many tokens of its own corpus after those of `guesser`, in a
    folder of this name."""
    changes = {"tokens": tokens, "seed": seed} | small_training(tokens)
    job = make_job(GUESSER, Path(name), changes=changes, start=guesser().out / "model")
    return replace(job, cfg=replace(job.cfg, mix=mix))


def small_training(tokens: int) -> dict[str, int]:
    """Settings for few tokens: shards and a warm-up to match."""
    shard = max(200, min(20_000, tokens // 200))
    return {"shard_documents": shard, "warmup_steps": min(100, max(1, tokens // 50_000))}


def is_for_all(job: PretrainJob) -> bool:
    """Whether a base is that of all studies."""
    return job.out == guesser().out


def made_before(job: PretrainJob) -> PretrainJob | None:
    """The base that this one goes on from, where a study makes that one too."""
    return guesser() if job.start == guesser().out / "model" else None


def base_model(job: PretrainJob, runs: Path, say: Say) -> Path:
    """The model of a base; made below `runs`, or in the folder for all, unless it is there.

    The one for all gets all cores: its cell runs alone. Raises `RunError` where the folder for all
    has something else.
    """
    if not is_for_all(job):
        return make_base(replace(job, out=runs / job.out.name), say)
    away = f"mv {job.out} {job.out}-old"
    if (job.out / "settings.json").is_file():
        try:
            keep_settings(job.out, job.settings)
        except ConfigError as error:
            raise RunError(error.got, "the base that the studies share", away) from None
    elif job.out.exists():
        raise RunError(f"{job.out} is no base", "no such folder", away)
    return make_base(job, say, ranks_for_all())


def ranks_for_all() -> int | None:
    """How many ranks make the base for all: None in the process of a cell, as many as suit its
    machine. One in a process that no other has started, as a lesson's, where threads share the
    cores: a rank reads the script again that has started it, and would begin the lesson anew."""
    return None if multiprocessing.parent_process() else 1


def base_seconds(job: PretrainJob, card: Card) -> float:
    """How long a base takes; nearly nothing where it is there for all."""
    if is_for_all(job) and (job.out / "model" / "config.json").is_file():
        return START_SECONDS
    cfg = job.cfg
    reading = PretrainTokens(cfg.tokens, cfg.batch_tokens, document_tokens(cfg.mix))
    seconds = estimate_base(job.shape, reading, card).cost.seconds
    return seconds * (ONE_THREAD if card.cpu else 1.0) + START_SECONDS


def document_tokens(mix: TraceMix) -> int:
    """The length of the document that a random token belongs to: guesses and pages of arithmetic
    are short, searches in order long."""
    if not mix.search:
        return GUESS_TOKENS
    return int(DOCUMENT_TOKENS if mix.orderly else GUESS_TOKENS + 100 * mix.search)


def work_of(job: PretrainJob) -> int:
    """How much work a base is, to compare with that of others."""
    return job.shape.parameters * job.cfg.tokens
