"""Reading NumPy archives of images or features."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pyarrow as pa

from coterie.training.data._assemble import assemble
from coterie.training.data._blurred import BLURRED, is_blurred
from coterie.training.data._config import ArrayConfig
from coterie.training.data._config_parts import ArrayInput
from coterie.training.data._dataset import SPLITS, Array, Dataset, Ints
from coterie.training.data._problems import Problems
from coterie.training.data._questions import ask, split_codes
from coterie.training.data._table import read_weights
from coterie.training.data._tables import Table, concatenate


@dataclass(frozen=True, eq=False)
class _Part:
    """What one archive holds: its inputs, its questions' cells, and the input that each question is about."""

    pools: dict[str, Array]
    table: Table
    row: Ints
    targets: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of inputs."""
        return len(next(iter(self.pools.values())))


class _Archive:
    """One file's arrays, each read when it is asked for; pickled objects are refused."""

    def __init__(self, path: Path, problems: Problems) -> None:
        self.file = path.name
        self._problems = problems
        self._arrays: dict[str, Array] = {}
        self.names: list[str] = []
        try:
            with np.load(path, allow_pickle=False) as archive:
                self.names = list(archive.files)
                for name in self.names:
                    self._read(archive, name)
        except OSError as error:
            problems.add(f"{self.file}: cannot be read ({error.strerror or 'no archive'}): check the path")
        except (ValueError, AttributeError, TypeError, EOFError, zipfile.BadZipFile):
            # numpy.load also reads single arrays, which are no context managers, and refuses pickles.
            problems.add(f"{self.file}: is not a NumPy archive: write it with numpy.savez")

    def _read(self, archive: Mapping[str, Array], name: str) -> None:
        try:
            self._arrays[name] = archive[name]
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            pickled = isinstance(error, ValueError) and "pickle" in str(error)
            what = (
                "holds Python objects: save numbers or strings"
                if pickled
                else "is damaged: write the file again"
            )
            self._problems.add(f"{self.file}, array {name!r}: {what}")

    def get(self, option: str, name: str, *, dims: Sequence[int], length: int | None = None) -> Array | None:
        """Return an array, noting why there is none."""
        if name not in self._arrays:
            if name not in self.names and self.names:
                close = get_close_matches(name, self.names, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"the arrays are {', '.join(self.names)}"
                self._problems.add(f"{self.file}: has no array {name!r}, which {option} names: {hint}")
            return None
        array = self._arrays[name]
        if array.ndim not in dims:
            allowed = " or ".join(map(str, dims))
            self._problems.add(
                f"{self.file}, array {name!r}: has shape {list(array.shape)}: "
                f"{option} takes {allowed} dimensions"
            )
            return None
        if length is not None and len(array) != length:
            self._problems.add(
                f"{self.file}, array {name!r}: has {len(array)} elements for {length} rows: "
                "give one for each row"
            )
            return None
        return array


def load_arrays(config: ArrayConfig) -> Dataset:
    """Read NumPy archives.

    Raises:
        DataError: If anything in them is wrong; every mistake is listed.
    """
    problems = Problems()
    archives = [_Archive(path, problems) for path in config.path.values()]
    problems.check()
    task_names = _names(archives, "task_names", config.task_names, problems)
    target_names = _names(archives, "target_names", config.target_names, problems)
    read = [
        _read(archive, config, task_names if config.task is None else None, problems) for archive in archives
    ]
    parts = [part for part in read if part is not None]
    for name in config.named():
        if len({part.pools[name].shape[1:] for part in parts}) > 1:
            shapes = ", ".join(f"{list(part.pools[name].shape)} in {part.table.files[0]}" for part in parts)
            problems.add(
                f"the inputs differ in shape ({shapes}): every archive holds the same kind of inputs"
            )
    if len({part.targets for part in parts}) > 1:
        problems.add("the archives differ in their numbers of targets: give all of them the same")
    problems.check()
    table = concatenate([part.table for part in parts])
    starts = np.cumsum([0, *(part.count for part in parts)])
    inputs = np.concatenate([part.row + start for part, start in zip(parts, starts, strict=False)])
    if config.split is not None:
        codes = split_codes(table, config.split, problems)
    else:
        splits = [SPLITS.index(name) if name != "all" else 0 for name in config.path]
        codes = np.repeat(np.array(splits, dtype=np.int64), [len(part.table) for part in parts])
    kept = codes >= 0
    questions = ask(
        table,
        config,
        targets=parts[0].targets,
        kept=kept,
        problems=problems,
        task_names=task_names if config.task is not None else None,
        target_names=target_names,
    )
    weight = read_weights(table, config.weight, kept, problems)
    pools = parts[0].pools
    if len(parts) > 1:
        pools = {name: np.concatenate([part.pools[name] for part in parts]) for name in pools}
    problems.check()
    return assemble(
        pools,
        questions,
        config,
        inputs=inputs[questions.row],
        code=codes[questions.row],
        weight=None if weight is None else weight[questions.row],
        tokens=None,
        where=str,
        problems=problems,
    )


def _names(
    archives: Sequence[_Archive], option: str, name: str | None, problems: Problems
) -> tuple[str, ...] | None:
    """Return an array of names, which must be the same in every archive that has it."""
    if name is None:
        return None
    holders = [archive for archive in archives if name in archive.names] or list(archives[:1])
    found = [archive.get(option, name, dims=(1,)) for archive in holders]
    lists = {tuple(str(item) for item in array.tolist()) for array in found if array is not None}
    if len(lists) > 1:
        problems.add(f"array {name!r}, which {option} names, differs between the archives: make them agree")
    return lists.pop() if lists else None


def _read(
    archive: _Archive, config: ArrayConfig, column_names: tuple[str, ...] | None, problems: Problems
) -> _Part | None:
    pools = _pools(archive, config, problems)
    if pools is None:
        return None
    count = len(next(iter(pools.values())))
    row = np.arange(count, dtype=np.int64)
    if config.row is not None:
        given = archive.get("row", config.row, dims=(1,))
        if given is None:
            return None
        row = given.astype(np.int64) if np.issubdtype(given.dtype, np.integer) else np.full(len(given), -1)
        problems.add_each(
            np.flatnonzero((row < 0) | (row >= count)),
            lambda at: (
                f"{archive.file}, row {at + 1}, array {config.row!r}: {given[at]} is no input: "
                f"they are counted from 0 to {count - 1}"
            ),
        )
    columns: dict[str, pa.ChunkedArray] = {}
    complete = True
    for option, name in (
        ("task", config.task),
        ("weight", config.weight),
        ("split.column", config.split.column if config.split else None),
    ):
        if name is not None:
            array = archive.get(option, name, dims=(1,), length=len(row))
            complete &= array is not None and _add(columns, archive, name, array, problems)
    targets: list[str] = []
    for name in config.target:
        array = archive.get("target", name, dims=(1, 2), length=len(row))
        if array is None:
            complete = False
        elif array.ndim == 1:
            targets.append(name)
            complete &= _add(columns, archive, name, array, problems)
        else:
            names = _matrix_names(archive, name, array.shape[1], column_names, problems)
            targets.extend(names)
            for index, column in enumerate(names):
                complete &= _add(columns, archive, column, array[:, index], problems)
    if not complete:
        return None
    line = np.arange(1, len(row) + 1, dtype=np.int64)
    table = Table(columns, (archive.file,), np.zeros(len(row), dtype=np.int64), line, "row", "array")
    return _Part(pools, table, row, tuple(targets))


def _matrix_names(
    archive: _Archive, name: str, width: int, given: tuple[str, ...] | None, problems: Problems
) -> tuple[str, ...]:
    if given is not None and len(given) != width:
        problems.add(
            f"{archive.file}, array {name!r}: has {width} columns for {len(given)} task names: "
            "give one name each"
        )
        given = None
    return given or tuple(f"{name}[{index}]" for index in range(width))


def _add(
    columns: dict[str, pa.ChunkedArray], archive: _Archive, name: str, array: Array, problems: Problems
) -> bool:
    if array.dtype.kind not in "biufU":
        problems.add(
            f"{archive.file}, array {name!r}: holds {array.dtype.name}: "
            "save whole numbers, numbers or strings"
        )
        return False
    columns[name] = pa.chunked_array([pa.array(array.tolist() if array.dtype.kind == "U" else array)])
    return True


def _pools(archive: _Archive, config: ArrayConfig, problems: Problems) -> dict[str, Array] | None:
    """Return an archive's inputs by name, as many of each; None where one cannot be read."""
    pools: dict[str, Array] = {}
    length: int | None = None
    for name, one in config.named().items():
        option = "" if config.inputs is None else f"inputs.{name}."
        pool = _pool(archive, one, option, length, problems)
        if pool is not None:
            pools[name] = pool
            length = len(pool)
    return pools if pools.keys() == config.named().keys() else None


def _pool(
    archive: _Archive, config: ArrayInput, option: str, length: int | None, problems: Problems
) -> Array | None:
    if config.images is not None:
        images = archive.get(f"{option}images", config.images, dims=(3, 4), length=length)
        if images is not None and images.dtype != np.uint8:
            problems.add(
                f"{archive.file}, array {config.images!r}: holds {images.dtype.name}: "
                "images are uint8, from 0 to 255; take any other numbers as features"
            )
            return None
        return images[..., None] if images is not None and images.ndim == 3 else images
    name = config.features or ""
    features = archive.get(f"{option}features", name, dims=(2,), length=length)
    if features is not None and features.dtype.kind not in "biuf":
        problems.add(f"{archive.file}, array {name!r}: holds {features.dtype.name}: features are numbers")
        return None
    if features is None:
        return None
    for column, values in enumerate(features.T):
        if is_blurred(values):
            problems.add(f"{archive.file}, array {name!r}, column {column}: {BLURRED}")
    with np.errstate(over="ignore"):
        pool = features.astype(np.float32)
    for row, column in np.argwhere(~np.isfinite(pool)):
        problems.add(
            f"{archive.file}, row {row + 1}, array {name!r}, column {column}: is {features[row, column]}: "
            "features are finite numbers of float32; correct or remove the row"
        )
    return pool
