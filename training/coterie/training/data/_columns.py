"""What the cells of a column mean: texts, names, numbers, or whichever of them fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from coterie.training.data._dataset import Array

Objects = npt.NDArray[np.object_]
Doubles = npt.NDArray[np.float64]

_EXACT = 2**53


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    )


def _objects(values: list[Any]) -> Objects:
    return np.fromiter(values, dtype=object, count=len(values))


def name_of(number: float) -> str:
    """Return a number as a name: 3.0 is ``3``."""
    return str(int(number)) if float(number).is_integer() else repr(float(number))


def texts(column: pa.ChunkedArray) -> Objects:
    """Return each cell as text, None where it is missing, ``[n]``."""
    column = _plain(column)
    if _is_text(column.type):
        return _objects(column.to_pylist())
    if pa.types.is_floating(column.type):
        cells = _doubles(column)
        return _objects([None if np.isnan(cell) else name_of(cell) for cell in cells])
    return _objects([None if value is None else str(value) for value in column.to_pylist()])


def words(column: pa.ChunkedArray) -> Objects:
    """Return each cell as text or, where they are lists, as a tuple of words, None where missing, ``[n]``."""
    if not holds_lists(column):
        return texts(column)
    return _objects([None if cell is None else tuple(cell) for cell in column.to_pylist()])


def names(column: pa.ChunkedArray) -> Objects:
    """Return each cell as a name without surrounding spaces, None where it is empty, ``[n]``."""
    return _objects([None if text is None or not text.strip() else text.strip() for text in texts(column)])


def values(column: pa.ChunkedArray) -> Doubles | Objects:
    """Return each cell's value, ``[n]``.

    Returns:
        Numbers (NaN where missing) when every cell is one; lists (None where missing) when every cell is
        one; else names (None where missing).
    """
    column = _plain(column)
    if holds_lists(column):
        return _objects(column.to_pylist())
    if pa.types.is_integer(column.type) and len(column) > column.null_count:
        bounds = pc.min_max(column).as_py()
        if max(abs(bounds["min"]), abs(bounds["max"])) > _EXACT:
            return names(column)
    if _is_number(column.type):
        return _doubles(column)
    found = names(column)
    parsed = _parse(found)
    return parsed if parsed is not None else found


def _doubles(column: pa.ChunkedArray) -> Doubles:
    # to_numpy turns null into NaN.
    result: Doubles = column.cast(pa.float64()).to_numpy().astype(np.float64)
    return result


def _parse(found: Objects) -> Doubles | None:
    try:
        cells = pa.array(found.tolist(), type=pa.large_string())
        parsed: Doubles = cells.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return None
    return parsed


def numbers(column: pa.ChunkedArray) -> tuple[Doubles, Objects]:
    """Return each cell as a number, ``[n]``, and the cells that are none (None elsewhere), ``[n]``.

    A missing cell is NaN and not a wrong one.
    """
    found = values(column)
    wrong = np.full(len(found), None, dtype=object)
    if found.dtype != object:
        return found.astype(np.float64), wrong
    result = np.full(len(found), np.nan)
    for index, cell in enumerate(found):
        if cell is None:
            continue
        try:
            result[index] = float(cell)
        except ValueError:
            wrong[index] = cell
    return result, wrong


def holds_lists(column: pa.ChunkedArray) -> bool:
    """Return whether every cell holds a list."""
    kind = column.type
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_list(column: pa.ChunkedArray) -> bool:
    """Return whether every cell holds a list of numbers."""
    return holds_lists(column) and _is_number(column.type.value_type)


def matrix(column: pa.ChunkedArray) -> tuple[Array, Array]:
    """Return a column of lists as ``[n, D]``, and which rows are missing or of another length, ``[n]``.

    D is the length that most rows have.
    """
    lengths = pc.list_value_length(column).to_numpy().astype(np.float64)
    present = lengths[~np.isnan(lengths)].astype(np.int64)
    width = int(np.bincount(present).argmax()) if len(present) else 0
    wrong = lengths != width
    result = np.zeros((len(column), width))
    flat = _doubles(pc.list_flatten(column.filter(pa.array(~wrong))))
    result[~wrong] = flat.reshape(-1, width)
    return result, wrong
