"""Where tensors lie in the weight file, so that a later export leaves those that stay where they are.

Graphs point at bytes of the weight file. Were it laid out by content alone, one new tensor would move all
that follow it, and with them every graph. An export that replaces a bundle therefore starts from its layout:

    a tensor that stays keeps its place
    a new one takes the place of one of the same length that is gone, or is put at the end

Where that leaves a gap, or the header outgrows its room, the file is laid out afresh: it never holds bytes of
tensors that no block has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coterie.runtime.bundle._safetensors import Span
from coterie.runtime.errors import ExportError

Arrays = Mapping[str, npt.NDArray[Any]]
"""Tensors by their content hashes."""

LENGTH_BYTES = 8
"""A safetensors file begins with its header's length."""

_PAGE = 4096
"""The data begins at a page: there is mostly room for a few entries more, without moving any tensor."""

_DTYPES = {
    "bool": "BOOL", "int8": "I8", "uint8": "U8", "int16": "I16", "uint16": "U16", "int32": "I32",
    "int64": "I64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
}  # fmt: skip
"""NumPy's names of types to those of safetensors."""


@dataclass(frozen=True)
class Layout:
    """The order of the tensors in a weight file, and its header.

    Attributes:
        keys: The tensors, one after the other without gaps.
        header: The file's first bytes, up to the first tensor.
    """

    keys: Sequence[str]
    header: bytes


def lay_out(arrays: Arrays, before: Mapping[str, Span] | None = None) -> Layout:
    """Decide where tensors lie.

    Args:
        arrays: The tensors.
        before: Where the tensors of the file lie that this one replaces.
    """
    if before:
        keys, room = _kept(arrays, before), min(span.start for span in before.values())
        if keys is not None:
            index = _index(keys, arrays)
            if LENGTH_BYTES + len(index) <= room:
                return Layout(keys, _header(index, room))
    keys = _afresh(arrays)
    index = _index(keys, arrays)
    return Layout(keys, _header(index, -(-(LENGTH_BYTES + len(index)) // _PAGE) * _PAGE))


def _afresh(arrays: Arrays) -> list[str]:
    """Return the keys in the order of a fresh file: wide items first, so that each one is aligned."""
    return sorted(arrays, key=lambda key: (-arrays[key].dtype.itemsize, key))


def _kept(arrays: Arrays, before: Mapping[str, Span]) -> list[str] | None:
    """Return the keys in an order that moves no tensor of the file before; None where there is none."""
    new = [key for key in _afresh(arrays) if key not in before]
    keys = []
    for key, span in sorted(before.items(), key=lambda item: (item[1].start, item[1].length)):
        if key not in arrays:
            heir = next((one for one in new if _fits(arrays[one], span)), None)
            if heir is None:
                return None
            new.remove(heir)
            keys.append(heir)
        else:
            keys.append(key)
    end = max(span.end for span in before.values())
    for key in new:
        if end % arrays[key].dtype.itemsize:
            return None
        keys.append(key)
        end += arrays[key].nbytes
    return keys


def _fits(array: npt.NDArray[Any], span: Span) -> bool:
    return array.nbytes == span.length and span.start % array.dtype.itemsize == 0


def _index(keys: Sequence[str], arrays: Arrays) -> bytes:
    """Return what a safetensors file says of its tensors, in their order."""
    entries, start = {}, 0
    for key in keys:
        array = arrays[key]
        entries[key] = {
            "dtype": _dtype_name(array.dtype),
            "shape": array.shape,
            "data_offsets": [start, start + array.nbytes],
        }
        start += array.nbytes
    return json.dumps(entries, separators=(",", ":")).encode()


def _header(index: bytes, room: int) -> bytes:
    """Return the length and the index, filled up with spaces."""
    length = room - LENGTH_BYTES
    return length.to_bytes(LENGTH_BYTES, "little") + index.ljust(length)


def _dtype_name(dtype: np.dtype[Any]) -> str:
    """Return the name of a type in safetensors."""
    if dtype.name not in _DTYPES:
        raise ExportError(f"a tensor of type {dtype.name} has no place in a weight file: use float32")
    return _DTYPES[dtype.name]
