"""Every error that coterie raises on purpose.

``CoterieError`` is the root: catch it to catch them all.

    CoterieError
    ├── ConfigError          a configuration is wrong; lists every mistake
    ├── DataError            a data set is wrong; lists every bad row
    ├── MissingExtraError    an optional part is not installed
    ├── TrainingError        a training cannot go on
    │   └── CheckpointError  a checkpoint cannot be written, read or resumed
    ├── ExportError          a bundle cannot be made
    │   └── ParityError      an exported graph does not answer as the torch model does
    ├── BundleError          a bundle cannot be loaded
    │   └── IntegrityError   a file of it is missing, truncated, altered or foreign
    │       └── SignatureError   it is not signed with the key that was given
    ├── RequestError         a question is wrong; the server goes on
    │   ├── UnknownTaskError
    │   ├── InvalidInputError
    │   └── DeadlineError    its answer would have come too late
    └── UnavailableError     a question cannot be taken now
        ├── OverloadedError  there is as much to do as may wait
        └── StoppedError     a run was ended before its time
"""

from __future__ import annotations

from collections.abc import Iterable

_SHOWN = 50


class CoterieError(Exception):
    """Root of coterie's errors; the message says what was wrong, where, and what to do next."""


class _ListedError(CoterieError):
    """An error that reports several problems at once; its message shows the first 50 and counts the rest.

    Attributes:
        problems: One line for each problem, in the order they were found.
    """

    def __init__(self, title: str, problems: Iterable[str] = ()) -> None:
        self.problems = tuple(problems)
        lines = [title, *(f"  - {problem}" for problem in self.problems[:_SHOWN])]
        if len(self.problems) > _SHOWN:
            lines.append(f"  ... and {len(self.problems) - _SHOWN} more")
        super().__init__("\n".join(lines))


class ConfigError(_ListedError):
    """A configuration is wrong. ``problems`` lists every mistake with its path."""


class DataError(_ListedError):
    """A data set is wrong. ``problems`` lists every bad cell with file, row and column."""


class MissingExtraError(CoterieError):
    """An optional part of coterie is needed and not installed."""

    def __init__(self, extra: str, purpose: str) -> None:
        self.extra = extra
        super().__init__(
            f"{purpose} needs an extra that is not installed; run: pip install 'coterie[{extra}]'"
        )


class TrainingError(CoterieError):
    """A training cannot go on, for example because its loss is not finite."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be written, read or resumed."""


class ExportError(CoterieError):
    """A bundle cannot be made from this run."""


class ParityError(ExportError):
    """An exported graph's outputs differ from the torch model's by more than the tolerance."""


class BundleError(CoterieError):
    """A bundle cannot be loaded."""


class IntegrityError(BundleError):
    """A file of a bundle is missing, truncated, altered or not the bundle's own."""


class SignatureError(IntegrityError):
    """A bundle is not signed, or not with the key that was given, or was altered since."""


class RequestError(CoterieError):
    """A question to a model is wrong. Its message is safe to send to a client."""


class UnknownTaskError(RequestError):
    """A question names a task that the bundle does not hold."""


class InvalidInputError(RequestError):
    """A question's input has a wrong shape, type or value."""


class DeadlineError(RequestError):
    """A question's answer was not there when its deadline came."""


class UnavailableError(CoterieError):
    """A question cannot be taken now. Its message is safe to send to a client."""


class OverloadedError(UnavailableError):
    """As much waits as may wait.

    Attributes:
        retry_seconds: After which there should be room again.
    """

    def __init__(self, message: str, *, retry_seconds: float) -> None:
        self.retry_seconds = retry_seconds
        super().__init__(message)


class StoppedError(UnavailableError):
    """A run was ended before its time."""
