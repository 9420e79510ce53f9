"""Models that are loaded for serving, by name, and the config of the run that trained them."""

import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aha.core.errors import ModelError, RunError
from aha.model.folders import cached_folder, looks_like_hub_name, resolve_model, run_of
from aha.model.tokenizer import Tokenizer
from aha.model.weights import load_model
from aha.rollout.native import open_engine
from aha.rollout.slot_engine import SlotEngine
from aha.store.guarded_files import GuardedFile

MAX_OPEN = 4


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model with its engine.

    `folder` is where its weights are: for a run that is still training, the newest checkpoint.
    """

    name: str
    folder: Path
    engine: SlotEngine

    @property
    def tokenizer(self) -> Tokenizer:
        """The engine's tokenizer."""
        return self.engine.tokenizer

    @property
    def positions(self) -> int:
        """The largest number of tokens of a prompt and its completion together."""
        positions: int = self.engine.loaded().config.max_position_embeddings
        return positions

    @property
    def origin(self) -> str:
        """The version of the model, as text: its checkpoint, or its name."""
        step = re.fullmatch(r"step_(\d+)", self.folder.name)
        if step:
            return f"checkpoint of step {int(step[1])}"
        return "trained to the end" if self.folder.name == "model" else Path(self.name).name


class ModelCache:
    """Opens models and keeps those that were used last.

    The folder of a run is resolved at every call, so that the newest checkpoint answers while the
    run trains. With `network` False no model is downloaded.
    """

    def __init__(self, max_open: int = MAX_OPEN, network: bool = True):
        self.max_open, self.network = max_open, network
        self._open: OrderedDict[tuple[Path, int], OpenModel] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> OpenModel:
        """The model of a name that `resolve_model` understands.

        Raises ModelError or RunError where there is no such model, where it cannot be read, and,
        without the network, where it is not on the disk.
        """
        if not self.network and looks_like_hub_name(name) and cached_folder(name) is None:
            raise ModelError(
                f"the model {name!r} is not on this disk",
                "one that has been fetched",
                f"aha ask 3 7 25 --target 82 --model {name} fetches it",
            )
        with self._lock:
            try:
                return self._get(name)
            except FileNotFoundError as error:
                # A training run deletes old checkpoints, perhaps the one that was being read.
                raise RunError(
                    f"{name}: {error.filename} was deleted while it was read",
                    "a checkpoint that stays",
                    "ask again: a newer one has taken its place",
                ) from error

    def _get(self, name: str) -> OpenModel:
        folder = resolve_model(name)
        key = (folder.resolve(), folder.stat().st_mtime_ns)
        model = self._open.pop(key, None)
        if model is None:
            check_files(folder, Path(name))
            loaded = load_model(folder)
            engine = open_engine(loaded.policy, loaded.tokenizer, loop="torch")
            model = OpenModel(name, folder, engine)
        self._open[key] = model
        while len(self._open) > self.max_open:
            self._open.popitem(last=False)
        return model


def check_files(folder: Path, named: Path) -> None:
    """Raise ModelError where something in a model's folder is no file, and where the model of a run
    has a file outside of the run: a run may come from somebody else.

    A folder that the user has named itself may have links, as those in the cache of the hub.
    """
    of_a_run = folder != named and folder.is_relative_to(named)
    for path in sorted(folder.iterdir()):
        file = GuardedFile(named, str(path.relative_to(named))) if of_a_run else None
        good = path.is_dir() or (file.stat() is not None if file else path.is_file())
        if not good and path.exists():  # a training run may delete it at any time
            raise ModelError(
                f"{path} is a link out of its run or no file", "regular files", f"remove {path}"
            )


def run_config(name: str) -> dict[str, Any]:
    """config.json of the run that `name` is, or whose model or checkpoint it is; empty if it is no
    run or the file is damaged."""
    run = run_of(Path(name))
    if run is None:
        return {}
    try:
        return GuardedFile(run, "config.json").read_object()
    except OSError:
        return {}
