"""From what a caller has to what a graph takes: strict about shape and value, safe casts only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from coterie.runtime.bundle import Bundle
from coterie.runtime.engine._values import all_finite
from coterie.runtime.errors import InvalidInputError
from coterie.runtime.manifest import TensorSpec
from coterie.runtime.text import Text, TextEncoder

Array = npt.NDArray[Any]


def as_inputs(bundle: Bundle, inputs: Any) -> tuple[dict[str, Array], int]:
    """Return the graphs' input tensors by name, each [R, ...], and R.

    Args:
        bundle: Whose inputs they are.
        inputs: An array, nested lists or, for text, strings. Where the model has several inputs, a mapping
            from the name of each to such a value, or a list of mappings, one for each row.

    Raises:
        InvalidInputError: If a name, a shape, a type or a value is wrong, a text is empty, or the inputs
            have not as many rows as each other.
    """
    specs = bundle.manifest.inputs
    alone = len(specs) == 1 and not isinstance(inputs, Mapping)
    given = {specs[0].name: inputs} if alone else _by_name(specs, inputs)
    tensors = {
        spec.name: _as_input(spec, given[spec.name], bundle.text if takes_text(bundle, spec) else None)
        for spec in specs
    }
    rows = {name: len(tensor) for name, tensor in tensors.items()}
    if len(rows) > 1 and len(set(rows.values())) > 1:
        counted = ", ".join(f"{name!r} has {count}" for name, count in rows.items())
        raise InvalidInputError(f"the inputs differ in their numbers of rows ({counted}): give all the same")
    return tensors, rows[specs[0].name]


def texts_of(bundle: Bundle, inputs: Any) -> tuple[Mapping[str, Any], str, Sequence[Text]] | None:
    """Return the inputs by name, which of them is of texts, and these; None where tokens are given.

    Raises:
        InvalidInputError: If a name is wrong, or a text is none.
    """
    specs = bundle.manifest.inputs
    alone = len(specs) == 1 and not isinstance(inputs, Mapping)
    given = {specs[0].name: inputs} if alone else _by_name(specs, inputs)
    for spec in specs:
        if takes_text(bundle, spec):
            words = bundle.text is not None and bundle.text.words is not None
            texts = _as_texts(given[spec.name], words=words)
            return None if texts is None else (given, spec.name, texts)
    return None


def takes_text(bundle: Bundle, spec: TensorSpec) -> bool:
    """Return whether an input is the one whose token ids are made of texts."""
    return bundle.text is not None and spec.dtype == "int64"


def _as_input(spec: TensorSpec, value: Any, text: TextEncoder | None) -> Array:
    texts = _as_texts(value, words=text is not None and text.words is not None)
    if texts is None:
        # Tokens are given a row for each text.
        first = value[0] if isinstance(value, (list, tuple)) and value else []
        if text is not None and not isinstance(first, (list, tuple, np.ndarray)):
            raise _no_text(0, first)
        tensor = as_tensor(spec, value)
        if text is not None:
            _check_tokens(spec, tensor, text)
        return tensor
    if text is None:
        raise InvalidInputError(f"input {spec.name!r} takes numbers, not text")
    return text.encode(texts)


def _by_name(specs: Sequence[TensorSpec], inputs: Any) -> Mapping[str, Any]:
    """Return the values of several inputs by name, from a mapping, or from a mapping for each row."""
    names = [spec.name for spec in specs]
    if isinstance(inputs, Mapping):
        _check_given(names, inputs, "")
        return inputs
    if isinstance(inputs, (list, tuple)) and all(isinstance(row, Mapping) for row in inputs):
        for number, row in enumerate(inputs):
            _check_given(names, row, f" of row {number}")
        return {name: [row[name] for row in inputs] for name in names}
    raise InvalidInputError(f"the model has the inputs {_quoted(names)}: give each of them by its name")


def _check_given(names: Sequence[str], given: Mapping[str, Any], where: str) -> None:
    missing = [name for name in names if name not in given]
    if missing:
        raise InvalidInputError(f"the inputs{where} lack {_quoted(missing)}: give each of {_quoted(names)}")
    unknown = [str(name)[:80] for name in given if name not in names]
    if unknown:
        raise InvalidInputError(
            f"the model has no input {_quoted(unknown)}{where}: its inputs are {_quoted(names)}"
        )


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def as_tensor(spec: TensorSpec, value: Any) -> Array:
    """Return ``value`` as a C-contiguous array of the spec's dtype and shape.

    Raises:
        InvalidInputError: If the shape, type or a value is wrong.
    """
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"input {spec.name!r} is ragged: every row needs the same shape") from error
    if array.shape == (0,) and len(spec.shape) > 1:
        # An empty list knows nothing of the other dimensions: it is a batch of no rows.
        array = array.reshape(0, *(dim or 1 for dim in spec.shape[1:]))
    _check_shape(spec, array)
    array = _cast(spec, array)
    if array.flags.c_contiguous and array.flags.aligned:
        return array
    # Tensors cut out of a request's body may lie at odd addresses.
    return np.require(array, requirements=["C", "A"])


def as_indices(name: str, value: Any, *, length: int | None, below: int) -> npt.NDArray[np.int64]:
    """Return ``value`` as int64 indices [B], each in ``0 <= index < below``.

    Raises:
        InvalidInputError: If it is not a vector of that length, of integers, in range.
    """
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"{name!r} is ragged: give one index for each question") from error
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InvalidInputError(
            f"{name!r} is {_describe(array)}: give a vector of integers, one for each question"
        )
    if length is not None and len(array) != length:
        raise InvalidInputError(
            f"{name!r} has {len(array)} entries for {length} questions: give one for each"
        )
    wrong = np.flatnonzero((array < 0) | (array >= below))
    if wrong.size:
        at = int(wrong[0])
        raise InvalidInputError(f"{name!r}[{at}] is {array[at]}: it must be from 0 to {below - 1}")
    return array.astype(np.int64)


def _as_texts(inputs: Any, *, words: bool) -> Sequence[Text] | None:
    """Return the texts (strings, or lists of words), or ``None`` when the inputs are not text."""
    if isinstance(inputs, str):
        return [inputs]
    if isinstance(inputs, np.ndarray):
        if inputs.dtype.kind not in "OU":
            return None
        inputs = inputs.reshape(-1).tolist() if inputs.ndim == 1 else inputs.tolist()
    if not isinstance(inputs, (list, tuple)):
        return None
    if words and any(isinstance(item, (list, tuple)) and _has_text(item) for item in inputs):
        return inputs
    if _has_text(inputs):
        for index, item in enumerate(inputs):
            if not isinstance(item, str):
                raise _no_text(index, item)
        return inputs
    return None


def _no_text(index: int, item: Any) -> InvalidInputError:
    return InvalidInputError(f"text {index} is of type {type(item).__name__}: give a string")


def _has_text(items: Sequence[Any]) -> bool:
    return any(isinstance(item, (str, bytes)) for item in items)


def _check_shape(spec: TensorSpec, array: Array) -> None:
    fits = array.ndim == len(spec.shape) and (
        array.shape[1:] == spec.shape[1:] or _agree(spec.shape[1:], array.shape[1:])
    )
    if fits and (array.shape[0] == 0 or 0 not in array.shape):
        return
    wanted = ", ".join(
        "R" if at == 0 else "L" if dim is None else str(dim) for at, dim in enumerate(spec.shape)
    )
    raise InvalidInputError(
        f"input {spec.name!r} has shape {list(array.shape)}, expected [{wanted}]{_hint(spec, array)}"
    )


def _hint(spec: TensorSpec, array: Array) -> str:
    """Return what may be meant by an array that lacks an axis."""
    if _agree(spec.shape[1:], array.shape):
        return "; one input is a batch of one: wrap it in a list"
    if spec.shape[-1] == 1 and _agree(spec.shape[1:-1], array.shape[1:]):
        return "; it lacks the last axis, of one channel: give array[..., None]"
    return ""


def _agree(wanted: Sequence[int | None], sizes: Sequence[int]) -> bool:
    return len(wanted) == len(sizes) and all(
        dim is None or dim == size for dim, size in zip(wanted, sizes, strict=True)
    )


def _cast(spec: TensorSpec, array: Array) -> Array:
    kind = array.dtype.kind
    if spec.dtype == "float32":
        if kind not in "fiub":
            raise _wrong_type(spec, array)
        if array.dtype != np.float32:
            with np.errstate(over="ignore"):
                array = array.astype(np.float32)
        if not all_finite(array):
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            raise InvalidInputError(
                f"input {spec.name!r} has a value in row {row} that is not a finite float32"
            )
        return array
    if array.size and kind not in "iub":
        raise _wrong_type(spec, array)
    target = np.dtype(spec.dtype)
    if array.size and not np.can_cast(array.dtype, target):
        low, high = np.iinfo(target).min, np.iinfo(target).max
        if int(array.min()) < low or int(array.max()) > high:
            raise InvalidInputError(f"input {spec.name!r} has a value outside {low} to {high}")
    return array.astype(target, copy=False)


def _check_tokens(spec: TensorSpec, array: Array, text: TextEncoder) -> None:
    # A graph would read a negative id as counted from the vocabulary's end.
    limits = np.array(text.vocabulary if text.words is None else text.words.limits)
    wrong = np.argwhere((array < 0) | (array >= limits))
    if wrong.size:
        limit = np.broadcast_to(limits, array.shape)[tuple(wrong[0])]
        raise InvalidInputError(
            f"input {spec.name!r} has a token id outside 0 to {limit - 1} in row {wrong[0][0]}"
        )
    if text.words is None:
        return
    there = array[:, :, 0] != text.spec.pad_id
    ragged = np.flatnonzero(~there[:, :1].any(axis=1) | (there[:, 1:] & ~there[:, :-1]).any(axis=1))
    if ragged.size:
        raise InvalidInputError(
            f"input {spec.name!r} has padding before a word, or no word, in row {ragged[0]}: words come first"
        )


def _wrong_type(spec: TensorSpec, array: Array) -> InvalidInputError:
    return InvalidInputError(
        f"input {spec.name!r} is {_describe(array)}: it takes {spec.dtype}, so give "
        + ("numbers" if spec.dtype == "float32" else "whole numbers")
    )


def _describe(array: Array) -> str:
    kind = {"O": "mixed objects", "U": "text", "S": "bytes"}.get(array.dtype.kind, str(array.dtype))
    return f"{kind} of shape {list(array.shape)}"
