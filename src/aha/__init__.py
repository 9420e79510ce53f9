"""Trains a language model to reason with reinforcement learning, and lets you watch it happen.

    import aha

    run = aha.train("demo", steps=20)      # or model=..., reward=..., data=...
    run.metrics, run.completions, run.report()

See docs/python.md. Nothing is imported before it is used: `import aha` needs no torch.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ("evaluate", "generate", "load", "open_run", "train")

if TYPE_CHECKING:
    from aha.api.calls import evaluate, generate, load, open_run, train
else:  # a type checker that saw this would take any name for one of the package

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'aha' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module("aha.api.calls"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
