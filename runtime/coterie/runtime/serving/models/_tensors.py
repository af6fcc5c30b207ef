"""Tensors of the Open Inference Protocol v2: datatypes, JSON data and raw bytes to NumPy and back."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coterie.runtime.errors import InvalidInputError

Array = npt.NDArray[Any]

DATATYPES: dict[str, str] = {
    "BOOL": "?", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "FP16": "<f2", "BF16": "<f4", "FP32": "<f4", "FP64": "<f8", "BYTES": "O",
}  # fmt: skip
"""Each datatype's NumPy dtype; BF16, which NumPy lacks, is widened to float32."""

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a request or an answer; BYTES elements are ``bytes`` in an object array."""

    datatype: str
    array: Array


def from_json(name: str, datatype: Any, shape: Any, data: Any) -> Tensor:
    """Return a tensor from JSON data, flat or nested.

    Raises:
        InvalidInputError: If the datatype is unknown or the data does not have that type and shape.
    """
    dims = _checked(name, datatype, shape)
    if not isinstance(data, list):
        raise InvalidInputError(f"tensor {name!r}: 'data' is a list, flat or nested")
    if datatype == "BYTES":
        return Tensor(datatype, _shaped(name, _texts(name, data), dims))
    try:
        array = _numbers(datatype, data)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInputError(f"tensor {name!r}: the data is ragged or not of numbers") from error
    return Tensor(datatype, _shaped(name, _of_type(name, datatype, array), dims))


def from_raw(name: str, datatype: Any, shape: Any, raw: memoryview | bytes) -> Tensor:
    """Return a tensor from its bytes: little-endian and row-major; BYTES with a 4-byte length before each.

    Raises:
        InvalidInputError: If the datatype is unknown or the bytes do not fit the shape.
    """
    dims = _checked(name, datatype, shape)
    if datatype == "BYTES":
        return Tensor(datatype, _shaped(name, _split(name, bytes(raw)), dims))
    stored = np.dtype("<u2" if datatype == "BF16" else DATATYPES[datatype])
    if len(raw) != math.prod(dims) * stored.itemsize:
        raise InvalidInputError(
            f"tensor {name!r}: {len(raw)} bytes for {datatype} of shape {dims}, "
            f"which takes {math.prod(dims) * stored.itemsize}"
        )
    array: Array = np.frombuffer(raw, dtype=stored)
    if datatype == "BF16":
        array = (array.astype("<u4") << 16).view("<f4")
    return Tensor(datatype, _shaped(name, array, dims))


def from_values(name: str, datatype: Any, shape: Any, values: Sequence[Any]) -> Tensor:
    """Return a tensor from typed values, row-major, as gRPC's ``contents`` holds them.

    Raises:
        InvalidInputError: If the datatype is unknown or the values do not have that type and shape.
    """
    dims = _checked(name, datatype, shape)
    if datatype == "BYTES":
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return Tensor(datatype, _shaped(name, array, dims))
    array = _numbers(datatype, values)
    return Tensor(datatype, _shaped(name, _of_type(name, datatype, array), dims))


def to_raw(array: Array) -> bytes:
    """Return an array's bytes, as ``from_raw`` reads them."""
    if array.dtype == object:
        return b"".join(_LENGTH.pack(len(item)) + item for item in array.reshape(-1))
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def to_json(array: Array) -> list[Any]:
    """Return an array's elements as flat JSON data."""
    flat = array.reshape(-1).tolist()
    if array.dtype == object:
        return [item.decode("utf-8") for item in flat]
    return flat


def as_bytes(texts: Sequence[str]) -> Array:
    """Return texts as a BYTES array [B]."""
    array = np.empty(len(texts), dtype=object)
    array[:] = [text.encode("utf-8") for text in texts]
    return array


def as_texts(name: str, array: Array) -> list[str]:
    """Return a BYTES array [R] or [R, 1] as texts.

    Raises:
        InvalidInputError: If it has another shape, or an element is not UTF-8.
    """
    if array.ndim != 1 and array.shape[1:] != (1,):
        raise InvalidInputError(f"tensor {name!r} has shape {list(array.shape)}, expected [R] or [R, 1]")
    texts = []
    for index, item in enumerate(array.reshape(-1)):
        try:
            texts.append(item.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"tensor {name!r}: element {index} is not UTF-8 text") from error
    return texts


def _checked(name: str, datatype: Any, shape: Any) -> list[int]:
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise InvalidInputError(
            f"tensor {name!r}: datatype {str(datatype)[:40]!r} is none of {', '.join(DATATYPES)}"
        )
    dims = list(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else None
    if dims is None or any(not isinstance(dim, int) or isinstance(dim, bool) or dim < 0 for dim in dims):
        raise InvalidInputError(f"tensor {name!r}: 'shape' is a list of integers from 0 up")
    return dims


def _shaped(name: str, array: Array, dims: list[int]) -> Array:
    try:
        if array.size == math.prod(dims):
            return array.reshape(dims)
    except ValueError:
        # Sizes past the address space beside a 0: their product fits, and nothing else does.
        pass
    raise InvalidInputError(f"tensor {name!r}: {array.size} elements do not make the shape {dims}"[:300])


def _numbers(datatype: str, data: Sequence[Any]) -> Array:
    """Return numbers, flat or nested, as an array of a type that holds them."""
    array: Array = np.array(data) if len(data) else np.zeros(0, dtype=np.int64)
    if datatype == "UINT64" and array.dtype.kind == "f":
        # Of whole numbers to both sides of INT64's largest NumPy makes floats, which round them.
        exact = np.array(data, dtype=object)
        if all(type(each) is int and each >= 0 for each in exact.flat):
            return exact.astype(np.uint64)
    return array


def _of_type(name: str, datatype: str, array: Array) -> Array:
    target = np.dtype(DATATYPES[datatype])
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[target.kind]
    if array.size and array.dtype.kind not in kinds:
        raise InvalidInputError(f"tensor {name!r}: the data is not {datatype}")
    if array.size and target.kind in "iu":
        info = np.iinfo(target)
        if int(array.min()) < info.min or int(array.max()) > info.max:
            raise InvalidInputError(
                f"tensor {name!r}: a value is outside {datatype}, {info.min} to {info.max}"
            )
    with np.errstate(over="ignore"):
        return array.astype(target, copy=False)


def _texts(name: str, data: list[Any]) -> Array:
    flat: list[Any] = data
    while flat and all(isinstance(item, list) for item in flat):
        flat = [inner for item in flat for inner in item]
    if not all(isinstance(item, str) for item in flat):
        raise InvalidInputError(f"tensor {name!r}: BYTES data is a list of strings")
    try:
        return as_bytes(flat)
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"tensor {name!r}: a string holds half a surrogate pair") from error


def _split(name: str, raw: bytes) -> Array:
    items: list[bytes] = []
    at = 0
    while at < len(raw):
        if at + 4 > len(raw):
            raise InvalidInputError(f"tensor {name!r}: BYTES data ends inside a length")
        (length,) = _LENGTH.unpack_from(raw, at)
        at += 4
        if at + length > len(raw):
            raise InvalidInputError(f"tensor {name!r}: BYTES element {len(items)} reaches past the data")
        items.append(raw[at : at + length])
        at += length
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array
