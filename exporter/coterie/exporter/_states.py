"""The shapes of the states between the stages, found by running the first task's blocks of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from coterie.exporter._weights import Array
from coterie.runtime.errors import ExportError
from coterie.runtime.manifest import TensorSpec
from coterie.runtime.plan import StagePlan
from coterie.training.frozen import FrozenModel
from coterie.training.several import Arrays, Tensors, apply, each, only

_EXAMPLE_ROWS = tuple(range(3, 100, 2))
_EXAMPLE_LENGTH = 8


@dataclass(frozen=True)
class StateShape:
    """Shape of one state, without the batch dimension; ``None`` differs from batch to batch."""

    dims: tuple[int | None, ...]

    @property
    def size(self) -> int | None:
        """Numbers in one state, or None where that differs."""
        if None in self.dims:
            return None
        return int(np.prod([size for size in self.dims if size is not None], dtype=np.int64))


def state_after(stage: StagePlan, result: StateShape) -> StateShape:
    """Return the shape of what a stage hands on, from that of its blocks' results."""
    dims = result.dims
    if stage.columns is not None:
        return StateShape(dims[1:])
    if stage.combine == "concat" and dims and dims[-1] is not None:
        return StateShape((*dims[:-1], dims[-1] * len(stage.uses[0])))
    return result


@dataclass(frozen=True)
class StageInput:
    """What a stage or a block takes: an example to trace with, ``[R, ...]``, and its shape.

    Of what joins several inputs these are tuples, one of each input.

    Attributes:
        blocks: Of a stage, what each of its blocks takes; of a block nothing.
    """

    example: Tensors
    shape: StateShape | tuple[StateShape, ...]
    blocks: tuple[StageInput, ...] = ()


def check_samples(inputs: tuple[TensorSpec, ...], samples: Arrays) -> None:
    """Check that the samples are inputs of the model.

    Raises:
        ExportError: If there are none, or their number, their type or their shape is another.
    """
    if len(each(samples)) != len(inputs) or len({len(array) for array in each(samples)}) > 1:
        names = ", ".join(repr(spec.name) for spec in inputs)
        raise ExportError(f"the samples are not of the inputs {names}: give one array of each, n rows each")
    for spec, array in zip(inputs, each(samples), strict=True):
        _check_samples(spec, array)


def _check_samples(spec: TensorSpec, samples: Array) -> None:
    wanted = f"{spec.dtype} {('n', *spec.shape[1:])}"
    fits = len(samples.shape) == len(spec.shape) and all(
        size is None or size == actual for size, actual in zip(spec.shape[1:], samples.shape[1:], strict=True)
    )
    if not fits or samples.dtype.name != spec.dtype:
        raise ExportError(
            f"the samples are {samples.dtype.name} {samples.shape}, but input {spec.name!r} is {wanted}: "
            "give the inputs of a validation split as the model takes them"
        )
    if len(samples) == 0:
        raise ExportError("no samples: an export is checked on real inputs, give at least one")


def stage_inputs(frozen: FrozenModel, samples: Arrays) -> list[StageInput]:
    """Return what each stage takes, from real inputs ``[n, ...]``."""
    first: Tensors = _examples(frozen.inputs, samples, _EXAMPLE_LENGTH)
    second: Tensors = _examples(frozen.inputs, samples, _EXAMPLE_LENGTH + 1)
    result = []
    for number in range(len(frozen.banks)):
        taken = zip(frozen.taken(number, first), frozen.taken(number, second), strict=True)
        blocks = tuple(
            StageInput(apply(Tensor.contiguous, one), _open_shape(one, other)) for one, other in taken
        )
        result.append(StageInput(first, _open_shape(first, second), blocks))
        # Contiguous: the tracer would take a column's strides for sizes of the batch.
        first, second = (frozen.handed_on(number, 0, states).contiguous() for states in (first, second))
    return result


def _open_shape(first: Tensors, second: Tensors) -> StateShape | tuple[StateShape, ...]:
    """Return the shape of states, open where those of two lengths differ."""
    shapes = []
    for one, other in zip(each(first), each(second), strict=True):
        dims = (a if a == b else None for a, b in zip(one.shape[1:], other.shape[1:], strict=True))
        shapes.append(StateShape(tuple(dims)))
    return only(tuple(shapes))


def _examples(inputs: tuple[TensorSpec, ...], samples: Arrays, length: int) -> Tensors:
    """Return a few samples, every open dimension cut or padded with zeros to a length."""
    # Equal sizes of two dimensions would make the tracer take them for one.
    sizes = {length, *(size for array in each(samples) for size in array.shape[1:])}
    rows = next(size for size in _EXAMPLE_ROWS if size not in sizes)
    return only(
        tuple(_example(spec, array, rows, length) for spec, array in zip(inputs, each(samples), strict=True))
    )


def _example(spec: TensorSpec, samples: Array, rows: int, length: int) -> Tensor:
    chosen = samples[np.arange(rows) % len(samples)]
    for axis, size in enumerate(spec.shape):
        if axis > 0 and size is None:
            chosen = chosen.take(range(min(length, chosen.shape[axis])), axis=axis)
            padding = [(0, 0)] * chosen.ndim
            padding[axis] = (0, length - chosen.shape[axis])
            chosen = np.pad(chosen, padding)
    return torch.from_numpy(np.ascontiguousarray(chosen))
