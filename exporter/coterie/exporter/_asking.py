"""What graphs are asked before they are published: which inputs, how many at once, of which lengths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coterie.exporter._weights import Array
from coterie.runtime.manifest import TensorSpec
from coterie.training.several import Arrays, each, only, take

Indices = npt.NDArray[np.int64]
Inputs = tuple[TensorSpec, ...]

LARGE = 1001
"""A large batch, and an odd one."""

_EVERY_LENGTH = 32
"""Up to here, sequences of every length are asked; of longer ones as many lengths again, spread evenly."""

_LARGE_LENGTH = 16
"""Sequences of a large batch are cut to this, or their states would take gigabytes."""

_FEW = 4


@dataclass(frozen=True, eq=False)
class Asked:
    """One run of the router.

    Attributes:
        take: Which of the inputs at hand are given, ``[R]``; some several times.
        row: ``[B]``, which of those each question is about.
        task: ``[B]``.
    """

    take: Indices
    row: Indices
    task: Indices


def questions(count: int, tasks: int) -> Iterator[Asked]:
    """Yield every way of asking the router: nothing, one, all tasks of one, mixed, repeated.

    Args:
        count: Number of inputs at hand, at least one.
        tasks: Number of tasks.
    """
    generator = np.random.default_rng(0)
    every, none = np.arange(count), np.zeros(0, dtype=np.int64)
    yield Asked(none, none, none)
    yield Asked(every, none, none)
    yield Asked(every[:1], np.zeros(1, dtype=np.int64), np.array([tasks - 1]))
    yield Asked(every[:1], np.zeros(tasks, dtype=np.int64), np.arange(tasks))
    two = min(count, 2)
    yield Asked(every[:two], generator.permutation(two), generator.integers(0, tasks, two))
    yield Asked(every, generator.permutation(count), generator.integers(0, tasks, count))
    odd = min(count, count // 2 | 1)
    yield Asked(every[:odd], generator.integers(0, odd, 3 * odd), generator.integers(0, tasks, 3 * odd))


def mixed(count: int, rows: int, tasks: int) -> Asked:
    """Return one question each about ``rows`` inputs, which are those at hand again and again."""
    generator = np.random.default_rng(rows)
    return Asked(np.arange(rows) % count, generator.permutation(rows), generator.integers(0, tasks, rows))


def batch_sizes(count: int) -> list[int]:
    """Return the batch sizes at which a task's graph is asked: none, one, two, an odd one, all."""
    return sorted({0, 1, min(count, 2), min(count, count // 2 | 1), count})


def few_lengths(inputs: Inputs, samples: Arrays) -> Iterator[Arrays]:
    """Yield the samples as they are, and cut to half their length and to 1 where that is open."""
    yield samples
    longest = _longest(inputs, samples)
    yield from (cut(inputs, samples, length) for length in {longest // 2, 1} if 0 < length < longest)


def every_length(inputs: Inputs, samples: Arrays) -> Iterator[Arrays]:
    """Yield a few samples cut to every length from 1 to theirs; nothing where no length is open."""
    longest = _longest(inputs, samples)
    short = min(_EVERY_LENGTH, longest)
    spread = np.linspace(short, longest, _EVERY_LENGTH).astype(int).tolist() if longest else []
    for length in sorted({*range(1, short + 1), *spread}):
        yield cut(inputs, take(samples, slice(_FEW)), length)


def large_length(inputs: Inputs, samples: Arrays) -> Arrays:
    """Return the samples in a length at which many of them can be asked at once."""
    return cut(inputs, samples, _LARGE_LENGTH)


def cut(inputs: Inputs, samples: Arrays, length: int) -> Arrays:
    """Return the samples with every open dimension cut to a length."""
    return only(tuple(_cut(spec, array, length) for spec, array in zip(inputs, each(samples), strict=True)))


def _cut(spec: TensorSpec, array: Array, length: int) -> Array:
    for axis in _open_axes(spec):
        array = array.take(range(min(length, array.shape[axis])), axis=axis)
    return array


def _longest(inputs: Inputs, samples: Arrays) -> int:
    """Return the largest size of an open dimension; 0 where there is none."""
    pairs = zip(inputs, each(samples), strict=True)
    return max((array.shape[axis] for spec, array in pairs for axis in _open_axes(spec)), default=0)


def _open_axes(spec: TensorSpec) -> list[int]:
    return [axis for axis, size in enumerate(spec.shape) if axis > 0 and size is None]
