"""This machine in a plan: measured now or before, or from the table of machines."""

import math
from collections.abc import Callable
from pathlib import Path

from aha.core.config import RunConfig
from aha.core.errors import ConfigError
from aha.machine.device import choose_device
from aha.machine.host import process_bytes
from aha.measure.base_length import local_model_folder
from aha.measure.probe import probe
from aha.plan.calibration import Calibration
from aha.plan.cost import budget_seconds
from aha.plan.prediction import lines_before
from aha.plan.shapes import Shape, shape_of
from aha.train.preflight import predict_run, with_machine_price


def measure_this_machine(
    cfg: RunConfig, shape: Shape, file: Path | None, say: Callable[[str], None]
) -> Calibration:
    """A calibration with the recipe's model, half a minute at most, written to `file` if given.

    Raises ConfigError where `file` cannot be written, or for a GPU without a known price.
    """
    if file and (file.is_dir() or not file.absolute().parent.is_dir()):
        raise ConfigError(f"cannot write {file}", "a file in a folder that exists")
    # A GPU without a price is an error now, not in half a minute.
    with_machine_price(cfg, choose_device(cfg.model.device, shape.parameters))
    say("measuring this machine, half a minute at most")
    calibration = probe(cfg, shape, cfg.model.path)
    if file:
        calibration.write(file)
    return calibration


def predicted_lines(cfg: RunConfig, budget: str | None) -> list[str]:
    """Lines of text: time, cost and memory of the run on this machine, and how far a budget goes.

    Raises ModelError where the model has no shape that is known here.
    """
    shape = shape_of(str(local_model_folder(cfg.model.path) or cfg.model.path))
    device = choose_device(cfg.model.device, shape.parameters)
    cfg = with_machine_price(cfg, device)
    seconds = budget_seconds(budget, cfg.usd_per_hour) if budget else math.inf
    return list(
        lines_before(predict_run(cfg, shape, device, resident_bytes=process_bytes()), seconds)
    )
