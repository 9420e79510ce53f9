"""The errors that Aha raises on purpose, and the one form of their messages.

AhaError
├── ConfigError   a recipe or a setting that makes no sense        (also a ValueError)
│   └── UnreadSetting  a setting that no part of the recipe reads
├── DataError     a file of problems that cannot be read           (also a ValueError)
├── ModelError    a model folder that cannot be read or does not fit  (also a ValueError)
├── RunError      a run folder that is missing, in use or damaged  (also an OSError)
├── RunStopped    a fault that ends a run before its last step
└── MissingExtra  an optional package that is not installed        (also an ImportError)

Each says in one line what it got, what it wanted and how to fix it. A model's bad completion is
never an error: it is a reward of 0 with a reason. A broken invariant between our own rooms is an
`assert`.
"""

LONGEST = 1_000  # characters of what was there, in a message: a value may have millions


def shorter(text: str, limit: int = LONGEST) -> str:
    """The text in one line, or its two ends where it is longer than `limit` characters."""
    text = " ".join(text.splitlines())
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} ... {text[-half:]}"


class AhaError(Exception):
    """Base of all errors that a user can mend. The command line prints it and exits with 2.

    `got` says what was there, `wanted` what has to be there, `fix` what to do.
    """

    def __init__(self, got: str, wanted: str = "", fix: str = ""):
        self.got, self.wanted, self.fix = got, wanted, fix
        parts = [shorter(got)]
        if wanted:
            parts.append(f"wanted {wanted}")
        if fix:
            parts.append(f"fix: {fix}")
        super().__init__(" ".join("; ".join(parts).splitlines()))

    # Exceptions are pickled by their `args`, which hold the joined message: without this, an error
    # that crosses a process boundary would come out with the message as its `got`.
    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.got, self.wanted, self.fix)


def shown(value: object, limit: int = 80) -> str:
    """A value as an error shows it: one line of at most `limit` characters.

    Works for what has no `repr` of its own to speak of: a number of thousands of digits, a list of
    thousands of levels.
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a value of type {type(value).__name__} that is too large to write"
    return shorter(text, limit)


class ConfigError(AhaError, ValueError):
    """A recipe or a setting that makes no sense."""


class UnreadSetting(ConfigError):
    """A setting that no part of the recipe reads: changed without an effect, it would pass for a
    different experiment. `key` is its dotted name."""

    def __init__(self, got: str, wanted: str = "", fix: str = "", key: str = ""):
        self.key = key
        super().__init__(got, wanted, fix)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.got, self.wanted, self.fix, self.key)


class DataError(AhaError, ValueError):
    """A file of problems that cannot be read."""


class ModelError(AhaError, ValueError):
    """A model folder that cannot be read or does not fit."""


class RunError(AhaError, OSError):
    """A run folder that is missing, in use or damaged."""


class RunStopped(AhaError):
    """A fault that ends a run before its last step: a broken grader, a gradient that is no number.

    `check` names what noticed it and `step` the step that it was noticed in. The command line exits
    with 1: the command was right, the run was not.
    """

    def __init__(self, got: str, wanted: str = "", fix: str = "", check: str = "", step: int = 0):
        self.check, self.step = check, step
        super().__init__(got, wanted, fix)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.got, self.wanted, self.fix, self.check, self.step)


class MissingExtra(AhaError, ImportError):
    """An optional package that is not installed."""

    def __init__(self, package: str, extra: str, fix: str = ""):
        self.package, self.extra = package, extra
        super().__init__(
            f"the package {package!r} is not installed",
            f"the extra [{extra}]",
            fix or f"pip install 'aha[{extra}]'",
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.package, self.extra, self.fix)
