"""Tables in memory, whatever file they came from, and where each row stood in it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coterie.runtime.cells import long_cells
from coterie.training.data._problems import Problems, shown

if TYPE_CHECKING:
    from coterie.training.data._dataset import Ints

Format = Literal["parquet", "csv", "jsonl"]
_SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length, and the origin of every row.

    Attributes:
        columns: Arrow columns by name, n rows each.
        files: Names of the files.
        file: Which file each row is from, ``[n]``.
        line: Its line in that file (CSV, JSON lines) or its number (Parquet, arrays), from 1, ``[n]``.
        unit: What ``line`` counts.
        cell: What a column is called.
    """

    columns: dict[str, pa.ChunkedArray]
    files: tuple[str, ...]
    file: Ints
    line: Ints
    unit: str
    cell: str = "column"

    def __len__(self) -> int:
        return len(self.line)

    def where(self, row: int, column: str) -> str:
        """Return where a cell stands, for a message."""
        return f"{self.files[self.file[row]]}, {self.unit} {self.line[row]}, {self.cell} {column!r}"


Wanted = Callable[[list[str]], list[str]]
"""Of a file's columns, those that are needed."""


def read_table(
    path: Path, kind: Format | None, delimiter: str, wanted: Wanted, problems: Problems
) -> Table | None:
    """Read one file; every row that cannot be read is noted in ``problems``, None when nothing can."""
    kind = kind or _SUFFIXES.get(path.suffix.lower())
    if kind is None:
        problems.add(
            f"{path.name}: cannot tell the format by the ending {path.suffix!r}: "
            "set format (parquet, csv, jsonl)"
        )
        return None
    try:
        if kind == "parquet":
            return _read_parquet(path, wanted)
        text = _decode(path, problems)
    except OSError as error:
        problems.add(
            f"{path.name}: cannot be read ({error.strerror or type(error).__name__}): check the path"
        )
        return None
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        problems.add(f"{path.name}: is not a readable Parquet file ({reason}): write it again, or set format")
        return None
    if kind == "csv":
        return _read_csv(path, text, "\t" if path.suffix.lower() == ".tsv" else delimiter, wanted, problems)
    return _read_json_lines(path, text, wanted, problems)


def _read_parquet(path: Path, wanted: Wanted) -> Table:
    file = pq.ParquetFile(path)
    names = wanted(list(file.schema_arrow.names))
    table = file.read(columns=names)
    columns = {name: table.column(name) for name in names}
    return _table(path, columns, np.arange(1, table.num_rows + 1, dtype=np.int64), "row")


def _table(path: Path, columns: dict[str, pa.ChunkedArray], line: Ints, unit: str) -> Table:
    return Table(columns, (path.name,), np.zeros(len(line), dtype=np.int64), line, unit)


def _decode(path: Path, problems: Problems) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        for number, line in enumerate(raw.split(b"\n"), start=1):
            try:
                line.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                problems.add(
                    f"{path.name}, line {number}: byte {error.start + 1} is not UTF-8: save the file as UTF-8"
                )
        return raw.decode("utf-8-sig", errors="replace")


def _read_csv(path: Path, text: str, delimiter: str, wanted: Wanted, problems: Problems) -> Table | None:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    with long_cells():
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                problems.add(f"{path.name}, line {line}: is not CSV ({error}): correct or remove the line")
                continue
            if not row:
                continue
            if rows and len(row) != len(rows[0]):
                problems.add(
                    f"{path.name}, line {line}: has {len(row)} cells where the header has {len(rows[0])}: "
                    "correct the line, or quote the cells that contain the delimiter"
                )
                continue
            rows.append(row)
            lines.append(line)
    if not rows:
        problems.add(f"{path.name}: is empty: a CSV file starts with a line of column names")
        return None
    header = rows[0]
    for name in sorted({name for name in header if header.count(name) > 1}):
        problems.add(f"{path.name}, line {lines[0]}: two columns are called {name!r}: rename one of them")
    columns = {
        name: pa.chunked_array([pa.array([row[index] or None for row in rows[1:]], type=pa.large_string())])
        for name, index in ((name, header.index(name)) for name in wanted(header))
    }
    return _table(path, columns, np.array(lines[1:], dtype=np.int64), "line")


def _read_json_lines(path: Path, text: str, wanted: Wanted, problems: Problems) -> Table | None:
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = (
                f"{error.msg} at character {error.colno}"
                if isinstance(error, json.JSONDecodeError)
                else "too deep"
            )
            problems.add(f"{path.name}, line {number}: is not JSON ({reason}): correct or remove the line")
            continue
        if not isinstance(row, dict):
            problems.add(
                f"{path.name}, line {number}: is {shown(row, 40)}, not an object: "
                "write {column: value, ...}"
            )
            continue
        rows.append(row)
        lines.append(number)
    if not rows:
        problems.add(f"{path.name}: holds no readable row: write one JSON object on each line")
        return None
    names = wanted(list(dict.fromkeys(name for row in rows for name in row)))
    columns = {name: _from_json([row.get(name) for row in rows]) for name in names}
    return _table(path, columns, np.array(lines, dtype=np.int64), "line")


def _from_json(values: list[Any]) -> pa.ChunkedArray:
    values = [None if value == "" else value for value in values]
    try:
        return pa.chunked_array([pa.array(values)])
    except (pa.ArrowException, TypeError, OverflowError):
        # Cells of several types: as text, so that each can be judged on its own.
        texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
        return pa.chunked_array([pa.array(texts, type=pa.large_string())])


def concatenate(tables: Sequence[Table]) -> Table:
    """Put several files' rows one after the other; they must have the same columns."""
    columns = {}
    for name in tables[0].columns:
        parts = [table.columns[name] for table in tables]
        if len({part.type for part in parts}) > 1:
            parts = [_as_text(part) for part in parts]
        columns[name] = pa.chunked_array(
            [chunk for part in parts for chunk in part.chunks], type=parts[0].type
        )
    files: list[str] = []
    numbers = []
    for table in tables:
        numbers.append(table.file + len(files))
        files.extend(table.files)
    return Table(
        columns,
        tuple(files),
        np.concatenate(numbers),
        np.concatenate([table.line for table in tables]),
        tables[0].unit,
        tables[0].cell,
    )


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    texts = [None if value is None else str(value) for value in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, type=pa.large_string())])
