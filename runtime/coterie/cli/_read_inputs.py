"""Inputs from a file or a pipe: JSON, NumPy, CSV, lines of text."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from coterie.runtime.errors import InvalidInputError
from coterie.runtime.manifest import Manifest, TensorSpec

FORMATS = (".json", ".npy", ".csv", ".txt")


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
        content = sys.stdin.read()
        ending = ".json" if content.lstrip()[:1] in ("[", "{") else ".txt" if text else ".csv"
        _check_several(ending, "the standard input", manifest)
        return _parse(ending, content, "the standard input", spec, text=text)
    path = Path(source)
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise InvalidInputError(
            f"{source} is none of {', '.join(FORMATS)}: give one of these, or - for a pipe"
        )
    _check_several(ending, source, manifest)
    try:
        if ending == ".npy":
            return np.load(path, allow_pickle=False)
        return _parse(ending, path.read_text(encoding="utf-8-sig"), source, spec, text=text)
    except OSError as error:
        raise InvalidInputError(f"cannot read {source}: {error.strerror or 'it is damaged'}") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{source} is not UTF-8 text: save it as UTF-8") from error
    except (ValueError, EOFError) as error:
        raise InvalidInputError(f"{source} is not a NumPy file of numbers ({error})") from error


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
        return [line for line in content.splitlines() if line.strip()]
    rows = [row for row in csv.reader(io.StringIO(content, newline="")) if row]
    return _texts(rows, name) if text else _numbers(rows, name, spec)


def _json(content: str, name: str) -> Any:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise InvalidInputError(f"{name} is not JSON ({error})") from error
    if isinstance(value, dict):
        if set(value) != {"inputs"}:
            raise InvalidInputError(f'{name}: give a list of inputs, or {{"inputs": [...]}}')
        value = value["inputs"]
    if not isinstance(value, list):
        raise InvalidInputError(f"{name} holds one value, not a list of inputs: put it in a list")
    return value


def _texts(rows: list[list[str]], name: str) -> list[str]:
    """Return the column ``text``, or the only column."""
    if rows and "text" in rows[0]:
        column, rows = rows[0].index("text"), rows[1:]
    elif all(len(row) == 1 for row in rows):
        column = 0
    else:
        raise InvalidInputError(
            f"{name} has several columns and none is called 'text': name it in the first line"
        )
    short = next((number for number, row in enumerate(rows) if len(row) <= column), None)
    if short is not None:
        raise InvalidInputError(f"{name}, row {short}: has no text")
    return [row[column] for row in rows]


def _numbers(rows: list[list[str]], name: str, spec: TensorSpec) -> Any:
    """Return the numbers of every row, in the tensor's shape; a first line of names is left out."""
    if rows and not _is_numbers(rows[0]):
        rows = rows[1:]
    width = len(rows[0]) if rows else 0
    for number, row in enumerate(rows):
        if len(row) != width or not _is_numbers(row):
            raise InvalidInputError(f"{name}, row {number}: needs {width} numbers, as the first row has")
    array = np.array(rows, dtype=np.float64).reshape(len(rows), width)
    if spec.dtype != "float32" and np.array_equal(array, np.rint(array)):
        array = array.astype(np.int64)
    dims = spec.shape[1:]
    known = [dim for dim in dims if dim is not None]
    if len(known) == len(dims) > 1 and int(np.prod(known)) == width:
        array = array.reshape(len(rows), *known)
    return array


def _is_numbers(row: list[str]) -> bool:
    try:
        return all(np.isfinite(float(cell)) for cell in row)
    except ValueError:
        return False
