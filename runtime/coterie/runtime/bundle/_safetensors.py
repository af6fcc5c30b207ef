"""The index of a weight file: which tensor lies where. Nothing but the header is read."""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from coterie.runtime._json import unique_names
from coterie.runtime.errors import IntegrityError

_LENGTH_BYTES = 8
_HEADER_LIMIT = 100_000_000
"""The format's own limit."""
_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Span:
    """Where a tensor lies in the file, from ``start`` to before ``end``, its type and its shape."""

    start: int
    end: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def length(self) -> int:
        """Bytes of the tensor."""
        return self.end - self.start

    @property
    def item(self) -> int:
        """Bytes of an entry."""
        return _ITEM_BYTES[self.dtype]

    def part(self, shape: tuple[int, ...]) -> int:
        """Return the bytes of a part of that shape."""
        return self.item * math.prod(shape)


@dataclass(frozen=True)
class TensorIndex:
    """The tensors of a weight file, by name."""

    spans: Mapping[str, Span]

    @cached_property
    def _ordered(self) -> list[tuple[int, int]]:
        return sorted((span.start, span.end) for span in self.spans.values() if span.length)

    def holds(self, start: int, length: int) -> bool:
        """Return whether these bytes of the file all belong to one tensor."""
        place = bisect.bisect_right(self._ordered, (start, math.inf)) - 1
        if place < 0:
            return False
        first, end = self._ordered[place]
        return first <= start and start + length <= end


def read_index(file: Path) -> TensorIndex:
    """Read the header of a safetensors file.

    Raises:
        IntegrityError: If it is not one: a tensor outside of the file, of unknown type, named twice, or of a
            length that is not its shape's.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            if not 0 < length <= min(size - _LENGTH_BYTES, _HEADER_LIMIT):
                raise ValueError("header length")
            header = json.loads(stream.read(length), object_pairs_hook=unique_names)
        first = _LENGTH_BYTES + length
        spans = {
            name: _span(tensor, first, size) for name, tensor in header.items() if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(
            f"{file.name!r} is not a safetensors file: copy or export the bundle again"
        ) from error
    return TensorIndex(spans)


def _span(tensor: Mapping[str, Any], first: int, size: int) -> Span:
    start, end = tensor["data_offsets"]
    shape, item = tensor["shape"], _ITEM_BYTES[tensor["dtype"]]
    if any(type(number) is not int or number < 0 for number in (start, end, *shape)):
        raise ValueError("not a natural number")
    if not start <= end <= size - first:
        raise ValueError("data offsets")
    # A product of a million large numbers would take minutes; no such tensor fits into a file.
    if 0 not in shape and sum(number.bit_length() - 1 for number in shape) > size.bit_length():
        raise ValueError("shape")
    if item * math.prod(shape) != end - start:
        raise ValueError("shape")
    return Span(first + start, first + end, tensor["dtype"], tuple(shape))
