"""One tensor, or one of each of a model's inputs: what all that takes inputs has in common.

A model of one input takes it as it is; a model of several takes a tuple of them, in the order of its
``inputs``, each of as many rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

T = TypeVar("T")
U = TypeVar("U")
A = TypeVar("A", npt.NDArray[Any], Tensor)

Arrays = npt.NDArray[Any] | tuple[npt.NDArray[Any], ...]
"""Inputs ``[R, ...]``."""
Tensors = Tensor | tuple[Tensor, ...]
"""Inputs ``[R, ...]`` of a torch model."""


def each(values: T | tuple[T, ...]) -> tuple[T, ...]:
    """Return all of them, also where it is only one."""
    return values if isinstance(values, tuple) else (values,)


def only(values: tuple[T, ...]) -> T | tuple[T, ...]:
    """Return the only one as it is; several stay a tuple."""
    return values[0] if len(values) == 1 else values


def apply(function: Callable[[T], U], values: T | tuple[T, ...]) -> U | tuple[U, ...]:
    """Return what a function makes of each."""
    return only(tuple(function(value) for value in each(values)))


def take(values: A | tuple[A, ...], rows: slice | npt.NDArray[np.int64]) -> A | tuple[A, ...]:
    """Return some rows of each."""
    return only(tuple(value[rows] for value in each(values)))


def count(values: Arrays | Tensors) -> int:
    """Return the number of rows, R."""
    return len(values[0] if isinstance(values, tuple) else values)
