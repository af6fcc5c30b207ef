"""Reads protobuf's wire format: enough to look into an ONNX graph where no onnx package is installed.

A message is a row of fields. Each begins with a number that holds the field's own number and how its value is
written: as a number of variable length, as 4 or 8 bytes, or as a length and so many bytes, which are a text,
raw data or a message again. What the fields mean is the caller's to know.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_LONGEST_VARINT = 10
_WORD = (1 << 64) - 1

Value = int | memoryview


class WireError(ValueError):
    """The bytes are no protobuf message."""


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield the fields of a message in their order: each one's number, and an integer or the bytes it holds.

    Raises:
        WireError: If a field is cut off, has number 0, or is of a group, which protobuf has given up.
    """
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise WireError("a field has the number 0")
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            length, at = _varint(message, at)
        elif kind in (_FOUR_BYTES, _EIGHT_BYTES):
            length = 4 if kind == _FOUR_BYTES else 8
        else:
            raise WireError(f"field {number} is of kind {kind}")
        if length > end - at:
            raise WireError(f"field {number} is cut off")
        yield number, message[at : at + length]
        at += length


def part(value: Value) -> memoryview:
    """Return the bytes of a field that holds bytes.

    Raises:
        WireError: If it is a number.
    """
    if isinstance(value, int):
        raise WireError("a number stands where a text or a message is expected")
    return value


def text(value: Value) -> str:
    """Return a field's text.

    Raises:
        WireError: If it is a number, or not UTF-8.
    """
    try:
        return str(part(value), "utf-8")
    except UnicodeDecodeError as error:
        raise WireError("a text is not UTF-8") from error


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the number that begins there, and where the next field does."""
    result = 0
    for index, byte in enumerate(message[at : at + _LONGEST_VARINT]):
        result |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return result & _WORD, at + index + 1
    raise WireError("a number is cut off or too long")
