"""The weight file: every distinct tensor once, addressed by its content; ONNX graphs point into it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coterie.exporter._layout import lay_out
from coterie.runtime.bundle._safetensors import Span, read_index
from coterie.runtime.errors import ExportError

Array = npt.NDArray[Any]


def content_hash(array: Array) -> str:
    """Return the SHA-256 of an array's dtype, shape and bytes; equal tensors have equal hashes."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(_bytes_of(array))
    return digest.hexdigest()


def _bytes_of(array: Array) -> memoryview | bytes:
    """Return the bytes of a contiguous array, without a copy of them."""
    # `memoryview` refuses arrays that have a dimension of size 0.
    return array.reshape(-1).view(np.uint8).data if array.size else b""


@dataclass(frozen=True)
class TensorRef:
    """A tensor that graphs refer to: a key of the weight file, and the part of it that is meant.

    Attributes:
        key: Content hash of the stored tensor.
        dtype: NumPy name of its type.
        shape: Shape of the part.
        offset: Bytes from the start of the stored tensor to the part.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def length(self) -> int:
        """Length of the part in bytes."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


@dataclass
class WeightStore:
    """Collects tensors before they are written; adding an equal one again costs nothing."""

    _arrays: dict[str, Array] = field(default_factory=dict)

    def add(self, array: Array) -> TensorRef:
        """Keep an array and return the reference to it."""
        array = np.ascontiguousarray(array).reshape(array.shape)
        key = content_hash(array)
        self._arrays.setdefault(key, array)
        return TensorRef(key, array.dtype.name, tuple(array.shape))

    @property
    def length(self) -> int:
        """Bytes of all tensors."""
        return sum(array.nbytes for array in self._arrays.values())

    def only(self, keys: Collection[str]) -> WeightStore:
        """Return a store of those tensors alone."""
        return WeightStore({key: self._arrays[key] for key in keys})

    def write(self, path: Path, before: WeightFile | None = None) -> WeightFile:
        """Write all arrays as safetensors; the same arrays give the same bytes, whatever their order.

        Args:
            path: The file.
            before: The weight file that this one replaces; tensors that stay keep their places.
        """
        layout = lay_out(self._arrays, None if before is None else before.spans)
        with path.open("wb") as file:
            file.write(layout.header)
            for key in layout.keys:
                file.write(_bytes_of(self._arrays[key]))
        return WeightFile.read(path)


@dataclass(frozen=True)
class WeightFile:
    """Where in a written weight file each tensor lies.

    Attributes:
        name: File name, relative to the graphs.
        spans: For each key where its tensor lies.
    """

    name: str
    spans: Mapping[str, Span]

    @classmethod
    def read(cls, path: Path) -> WeightFile:
        """Read the header of a safetensors file.

        Raises:
            IntegrityError: If it is not one.
        """
        return cls(path.name, read_index(path).spans)

    @property
    def length(self) -> int:
        """Bytes of all tensors."""
        return sum(span.length for span in self.spans.values())

    def offset(self, ref: TensorRef) -> int:
        """Return the first byte of a tensor in the file.

        Raises:
            ExportError: If the file does not hold it.
        """
        span = self.spans.get(ref.key)
        if span is None or ref.offset + ref.length > span.length:
            raise ExportError(f"tensor {ref.key} of {ref.length} bytes is not in {self.name}: export again")
        return span.start + ref.offset
