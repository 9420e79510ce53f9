"""A run in Weights & Biases (the extra [wandb]): its rows, tables of completions, histograms.

Without a login or a network the run is kept in a folder, from which `wandb sync` sends it. The
environment variables of wandb hold: WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_DIR and others.
"""

import os
import shlex
from typing import Any

from aha.core.control_characters import visible
from aha.core.errors import shorter
from aha.loggers.logger_protocol import LoggedRun
from aha.loggers.run_rows import COLUMNS, Entry

PROJECT = "aha"
INIT_TIMEOUT_S = 20.0  # a server that has not answered by then is none
FINISH_TIMEOUT_S = 60.0  # for what is left to send at the end
NAME_CHARS = 128  # the longest name that its server takes


def check_import() -> None:
    """Import the package. Raises what the import raises."""
    import wandb  # noqa: F401


class WandbLogger:
    """One run in wandb. Steps are its steps; the tests stand in the summary."""

    rewinds = False  # wandb drops what is not newer than the last step

    def open(self, run: LoggedRun) -> None:
        """Begin or resume the run: online where there is a login and a server answers, else in
        offline mode, which is said once."""
        import wandb

        settings = wandb.Settings(
            silent=True,  # one line of ours in place of wandb's
            init_timeout=INIT_TIMEOUT_S,
            finish_timeout=FINISH_TIMEOUT_S,
            finish_timeout_raises=True,
            # The repository around the current folder is the user's, not ours.
            disable_git=True,
        )
        options: dict[str, Any] = {
            "project": os.environ.get("WANDB_PROJECT") or PROJECT,
            "name": run.name[:NAME_CHARS],
            "id": run.id,
            "resume": "allow",
            "reinit": "create_new",  # another run of this process is not ended
            "config": dict(run.config),
            "settings": settings,
        }
        self.wandb, self.say = wandb, run.say
        wandb.setup(settings=settings)
        self.run, reason = self.begin(options)
        self.last_step = max(0, run.step)
        for names in ("validation/*", "eval/*"):
            self.run.define_metric(names, step_metric="validation/step")
        self.sync = f"wandb sync {shlex.quote(os.path.dirname(self.run.dir))}"
        if self.run.disabled:
            run.say("wandb: off, because WANDB_MODE is disabled")
        elif self.run.offline:
            run.say(f"wandb: {reason}: offline mode; to send the run later: {self.sync}")
        else:
            run.say(f"wandb: {self.run.url}")

    def begin(self, options: dict[str, Any]) -> tuple[Any, str]:
        """(the run of wandb, why it is offline where it is)."""
        wandb = self.wandb
        if os.environ.get("WANDB_MODE"):
            return wandb.init(**options), f"WANDB_MODE is {os.environ['WANDB_MODE']}"
        try:
            if not wandb.login(prompt=False, verify=False):
                return wandb.init(mode="offline", **options), "no login (`wandb login`)"
            return wandb.init(mode="online", **options), ""
        except (wandb.errors.Error, TimeoutError) as error:
            # The service of wandb holds on to the id until it ends.
            wandb.teardown()
            reason = visible(shorter(str(error), 200))
            return wandb.init(mode="offline", **options), f"no connection ({reason})"

    def log(self, entry: Entry) -> None:
        """Hand an entry to wandb's own process, which writes and sends it."""
        if entry.kind in ("before", "after"):
            self.run.summary.update(entry.numbers)
            return
        values: dict[str, Any] = dict(entry.numbers)
        for name, column in entry.histograms.items():
            values[name] = self.wandb.Histogram(column)
        if rows := entry.table:
            values["completions"] = self.wandb.Table(
                columns=list(COLUMNS), data=rows, allow_mixed_types=True
            )
        # wandb drops what is older than its last step: a resumed run may make up a validation.
        self.last_step = max(self.last_step, entry.step)
        self.run.log(values, step=self.last_step)

    def close(self, failed: bool) -> None:
        """Send the rest. Raises TimeoutError where that takes too long."""
        if not (self.run.offline or self.run.disabled):
            self.say(f"wandb: sending what is left, {FINISH_TIMEOUT_S:.0f} s at most")
        try:
            self.run.finish(exit_code=int(failed))
        except TimeoutError:
            raise TimeoutError(f"not all was sent in time; to send the rest: {self.sync}") from None
