"""Models that are open for talk, by the names that people give them."""

import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from aha.core.errors import ModelError, RunError
from aha.model.folders import resolve_model
from aha.model.hub import cached_folder, looks_like_hub_name
from aha.model.tokenizer import Tokenizer
from aha.model.weights import load_model
from aha.rollout.factory import open_engine
from aha.rollout.native import NativeEngine

KEPT = 4


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model with its engine. `folder` is where its weights lie: of a run that goes on, the
    newest checkpoint."""

    name: str
    folder: Path
    engine: NativeEngine

    @property
    def tokenizer(self) -> Tokenizer:
        return self.engine.tokenizer

    @property
    def positions(self) -> int:
        """How many tokens a prompt and its completion may have together."""
        return self.engine.weights.config.max_position_embeddings

    @property
    def origin(self) -> str:
        """Where in its training the model is, for a reader."""
        step = re.fullmatch(r"step_(\d+)", self.folder.name)
        if step:
            return f"checkpoint of step {int(step[1])}"
        return "trained to the end" if self.folder.name == "model" else Path(self.name).name


class ModelCache:
    """Opens models and keeps those that were used last. A run is looked at anew each time, so that
    the newest checkpoint answers while it trains."""

    def __init__(self, kept: int = KEPT, network: bool = True):
        self.kept, self.network = kept, network
        self._open: OrderedDict[tuple[Path, int], OpenModel] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> OpenModel:
        """The model of a name, as `resolve_model` understands it. Raises an `AhaError` with what
        is wrong; where the network is not to be asked, for a model that is not on the disk."""
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
                raise RunError(
                    f"{name}: {error.filename} went away while it was read",
                    "a checkpoint that stays",
                    "ask again: a newer one has taken its place",
                ) from error

    def _get(self, name: str) -> OpenModel:
        folder = resolve_model(name)
        key = (folder.resolve(), folder.stat().st_mtime_ns)
        found = self._open.pop(key, None)
        if found is None:
            model = load_model(folder)
            found = OpenModel(
                name, folder, open_engine(model.policy, model.tokenizer, loop="torch")
            )
        self._open[key] = found
        while len(self._open) > self.kept:
            self._open.popitem(last=False)
        return found
