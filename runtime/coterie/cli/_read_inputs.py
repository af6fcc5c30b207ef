"""Inputs from a file or a pipe: JSON, NumPy, CSV, lines of text."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
import tokenize
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coterie.runtime.cells import long_cells
from coterie.runtime.errors import InvalidInputError
from coterie.runtime.manifest import Manifest, TensorSpec

FORMATS = (".json", ".npy", ".csv", ".txt")

_PIPE = "the standard input"
_SHOWN = 40


class _Row(NamedTuple):
    """A row of a CSV, and the line that it begins on, from 1."""

    line: int
    cells: list[str]


def read_inputs(source: str, manifest: Manifest) -> Any:
    """Return what a file holds, as an engine takes it: texts, an array ``[R, ...]``, or a list of objects.

    Args:
        source: A ``.json``, ``.npy``, ``.csv`` or ``.txt`` file; ``-`` is the standard input: JSON, or else
            lines of text for a text bundle and CSV for any other. Several inputs are read from JSON alone.
        manifest: What the bundle takes.

    Raises:
        InvalidInputError: If the file cannot be read or is not what its name says.
    """
    spec, text = manifest.inputs[0], manifest.text is not None
    if source == "-":
        content = _decoded(sys.stdin.buffer.read(), _PIPE)
        ending = ".json" if content.lstrip()[:1] in ("[", "{") else ".txt" if text else ".csv"
        _check_several(ending, _PIPE, manifest)
        return _parse(ending, content, _PIPE, spec, text=text)
    path = Path(source)
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise InvalidInputError(
            f"{source} is none of {', '.join(FORMATS)}: give one of these, or - for a pipe"
        )
    _check_several(ending, source, manifest)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"cannot read {source}: {error.strerror or 'it is damaged'}") from error
    if ending == ".npy":
        return _array(raw, source)
    return _parse(ending, _decoded(raw, source), source, spec, text=text)


def _decoded(raw: bytes, name: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{name} is not UTF-8 text: save it as UTF-8") from error


def _array(raw: bytes, name: str) -> Any:
    try:
        array = np.lib.format.read_array(io.BytesIO(raw), allow_pickle=False)
    except (ValueError, EOFError, tokenize.TokenError, SyntaxError, TypeError, ArithmeticError) as error:
        raise InvalidInputError(f"{name} is not a NumPy file of numbers ({error})") from error
    except (MemoryError, RecursionError) as error:
        raise InvalidInputError(f"{name} is not a NumPy file of numbers (its header is damaged)") from error
    if not array.ndim:
        raise InvalidInputError(f"{name} holds one value, not an array of inputs: give it a first dimension")
    return array


def _check_several(ending: str, name: str, manifest: Manifest) -> None:
    if len(manifest.inputs) > 1 and ending != ".json":
        keys = ", ".join(f'"{spec.name}": ...' for spec in manifest.inputs)
        raise InvalidInputError(f"{name}: the bundle has several inputs: give JSON, a list of {{{keys}}}")


def _parse(ending: str, content: str, name: str, spec: TensorSpec, *, text: bool) -> Any:
    if ending == ".json":
        return _json(content, name)
    if ending == ".txt":
        if not text:
            raise InvalidInputError(
                f"{name} holds lines of text, but the bundle takes numbers: use JSON or CSV"
            )
        return _lines(content, name)
    rows = _rows(content, name)
    return _texts(rows, name) if text else _numbers(rows, name, spec)


def _lines(content: str, name: str) -> list[str]:
    """Return the lines, each a text; only a line feed ends one, and only the last may be empty."""
    lines = [line.removesuffix("\r") for line in content.removesuffix("\n").split("\n")] if content else []
    empty = next((number for number, line in enumerate(lines, 1) if not line.strip()), None)
    if empty is not None:
        raise InvalidInputError(f"{name}, line {empty}: is empty: remove it, or every answer's number is off")
    return lines


def _json(content: str, name: str) -> Any:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise InvalidInputError(f"{name} is not JSON ({error})") from error
    except RecursionError as error:
        raise InvalidInputError(f"{name} is JSON that is nested too deep: give a list of inputs") from error
    if isinstance(value, dict):
        if set(value) != {"inputs"}:
            raise InvalidInputError(f'{name}: give a list of inputs, or {{"inputs": [...]}}')
        value = value["inputs"]
    if not isinstance(value, list):
        raise InvalidInputError(f"{name} holds one value, not a list of inputs: put it in a list")
    return value


def _rows(content: str, name: str) -> list[_Row]:
    """Return the rows of a CSV, blank lines left out."""
    reader = csv.reader(io.StringIO(content, newline=""))
    rows, line = [], 1
    with long_cells():
        try:
            for cells in reader:
                if cells:
                    rows.append(_Row(line, cells))
                line = reader.line_num + 1
        except csv.Error as error:
            raise InvalidInputError(
                f"{name}, line {line}: is not CSV ({error}): correct or remove the line"
            ) from error
    return rows


def _texts(rows: list[_Row], name: str) -> list[str]:
    """Return the column ``text``."""
    if not rows or "text" not in rows[0].cells:
        raise InvalidInputError(
            f"{name} has no column 'text': name it so in the first line, or give lines of text as .txt"
        )
    column, rows = rows[0].cells.index("text"), rows[1:]
    short = next((row.line for row in rows if len(row.cells) <= column), None)
    if short is not None:
        raise InvalidInputError(f"{name}, line {short}: has no text: fill it in, or remove the line")
    return [row.cells[column] for row in rows]


def _numbers(rows: list[_Row], name: str, spec: TensorSpec) -> Any:
    """Return the numbers of every row, in the tensor's shape; a first line of names is left out."""
    dims = spec.shape[1:]
    known = [dim for dim in dims if dim is not None]
    fixed = len(known) == len(dims)
    width = math.prod(known) if fixed else len(rows[0].cells) if rows else 0
    for line, cells in rows:
        if len(cells) != width:
            wanted = f"the bundle takes {width} numbers a row" if fixed else f"the first row has {width}"
            raise InvalidInputError(
                f"{name}, line {line}: has {_counted(len(cells))}, but {wanted}: give as many, between commas"
            )
    if rows and _is_header(rows[0].cells):
        rows = rows[1:]
    values = [[_number(row, column, name) for column in range(width)] for row in rows]
    array = np.array(values, dtype=np.float64).reshape(len(rows), width)
    if spec.dtype != "float32" and np.array_equal(array, np.rint(array)):
        array = array.astype(np.int64)
    return array.reshape(len(rows), *known) if fixed and len(dims) > 1 else array


def _counted(cells: int) -> str:
    return f"{cells} cell" + ("" if cells == 1 else "s")


def _is_header(cells: list[str]) -> bool:
    """Return whether a row holds names: most of its cells that are not empty are no numbers, not even NaN."""
    numbers = [_parsed(cell) is not None for cell in cells if cell.strip()]
    return 2 * sum(numbers) < len(numbers)


def _number(row: _Row, column: int, name: str) -> float:
    cell = row.cells[column]
    number = _parsed(cell)
    if number is not None and math.isfinite(number):
        return number
    what = repr(cell if len(cell) <= _SHOWN else f"{cell[:_SHOWN]}...") if cell.strip() else "empty"
    raise InvalidInputError(
        f"{name}, line {row.line}, column {column + 1}: is {what}, not a finite number: correct the cell, or "
        "remove the line"
    )


def _parsed(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
