"""A question to a model and its answer, as every transport has them."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from coterie.runtime.errors import InvalidInputError
from coterie.runtime.serving.access._callers import ANYBODY, Caller
from coterie.runtime.serving.models._metadata import VERSION
from coterie.runtime.serving.models._tensors import Tensor

PRIORITY = 2
"""Of a question that names none."""
_FOREVER = 10**15
"""Microseconds, thirty years: more than that cannot be told from it."""
_LAST = 3
"""The priority that goes last."""
_UNSUPPORTED = ("shared_memory_region",)


@dataclass(frozen=True)
class Question:
    """A request: a model, its inputs, and which outputs to give (all, if none is named).

    ``timeout`` is after how many seconds nobody wants the answer any more; ``priority`` is who goes first, 1
    before 2 before 3; ``classes`` says of which outputs only so many of the likeliest classes are wanted;
    ``caller`` is who asks; ``since`` is when it came, where it had to wait before it was read.
    """

    model: str
    inputs: Mapping[str, Tensor]
    version: str = ""
    outputs: tuple[str, ...] = ()
    timeout: float | None = None
    priority: int = PRIORITY
    classes: Mapping[str, int] = field(default_factory=dict)
    caller: Caller = ANYBODY
    since: float | None = None

    def waited(self, since: float | None) -> Question:
        """Return the question as one that came then, on the clock of ``time.perf_counter``."""
        return self if since is None else replace(self, since=since)


@dataclass(frozen=True)
class Answer:
    """The tensors that a model gives."""

    model: str
    outputs: dict[str, Tensor] = field(default_factory=dict)
    version: str = VERSION
    """The version that gave them."""


def timeout_of(value: Any) -> float | None:
    """Return the seconds of a request's ``timeout``, in microseconds as Triton has it; 0 is none.

    Raises:
        InvalidInputError: If it is no such number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInputError("the parameter 'timeout' is a whole number of microseconds")
    return min(value, _FOREVER) / 1e6 if value else None


def priority_of(value: Any) -> int:
    """Return a request's ``priority``, 1 to 3; 0 or none is the ordinary one, as Triton has it.

    Raises:
        InvalidInputError: If it is no such number.
    """
    if value is None:
        return PRIORITY
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LAST:
        raise InvalidInputError(f"the parameter 'priority' is 1, which goes first, to {_LAST}, or 0")
    return value or PRIORITY


def check_parameters(names: Container[str], of: str) -> None:
    """Check the names of the parameters of a request, an input or an output; most mean nothing here.

    Raises:
        InvalidInputError: If one would change what the data means, and the server does not have it.
    """
    for name in _UNSUPPORTED:
        if name in names:
            raise InvalidInputError(f"{of[:100]}: this server has no {name!r}")
