"""The checkpoint that is saved when an error ends a run: its last whole step."""

from contextlib import suppress

from aha.core.errors import RunStopped
from aha.core.findings import failure_of
from aha.store.run_folder import Run
from aha.training.failed_step import keep_failed_step
from aha.training.joint_work import all_ranks_have, weights_are_numbers_together
from aha.training.watchers import Checkpoint, Record


def save_on_error(error: BaseException, run: Run, record: Record, checkpoint: Checkpoint) -> str:
    """Save the last whole step after an error, and say what came of it.

    Nothing is saved in the middle of a step: its weights are of no version. Nor where the row of
    the step is not written, which no resume could make again, nor where this checkpoint has failed
    already, nor weights that are no numbers. Models in shards take all ranks, so they are saved
    only after a fault that leaves all of them ready. No older checkpoint is removed. A fault of the
    run goes to its findings.
    """
    trainer, step = checkpoint.trainer, checkpoint.trainer.version
    place = ""
    if isinstance(error, RunStopped):
        place = f"stopped by a fault in step {error.step}: {run.findings}; "
        with suppress(Exception):  # the disk may be the fault
            run.tell(error.step, failure_of(error))
            if trainer.failed_step:
                keep_failed_step(run, trainer.failed_step, error, trainer.tokenizer)
    if trainer.world.in_shards and not all_ranks_have(error, trainer):
        return f"{place}step {step} is not saved, which would take the shards of all ranks"
    if checkpoint.failed == step:
        return f"{place}step {step} is not saved"
    if trainer.mid_step or record.last_step != step:
        return f"{place}nothing is saved of the step that was not whole"
    try:
        if not weights_are_numbers_together(trainer):
            return f"{place}nothing is saved of step {step}, whose weights are no numbers"
        checkpoint.save(keep_older=True)
    except Exception as second:  # the first error is the one to raise
        return f"{place}step {step} is not saved: {' '.join(str(second).split())}"
    return f"{place}step {step} is saved"
