"""A bundle on disk: read, verify, and only then let anything be mapped."""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from coterie.runtime.errors import BundleError, IntegrityError, UnknownTaskError
from coterie.runtime.manifest import MANIFEST, WEIGHTS, FileEntry, Manifest, parse_manifest
from coterie.runtime.tasks import TaskSpec
from coterie.runtime.text import TextEncoder

_CHUNK = 1 << 20
_HEADER_LIMIT = 100_000_000
_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
_AGAIN = "copy or export the bundle again"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: its folder, its manifest and, for text, its encoder."""

    path: Path
    manifest: Manifest
    text: TextEncoder | None = None

    @cached_property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """The tasks, in the order of their indices."""
        return tuple(entry.task for entry in self.manifest.tasks)

    @cached_property
    def _index(self) -> Mapping[str, int]:
        return {task.name: index for index, task in enumerate(self.tasks)}

    def task_index(self, name: str) -> int:
        """Return the index of a task.

        Raises:
            UnknownTaskError: If the bundle has no task of that name; the message suggests close ones.
        """
        index = self._index.get(name)
        if index is None:
            raise UnknownTaskError(_unknown(name, tuple(self._index)))
        return index


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read and verify a bundle: every file's kind, length and SHA-256, before any is mapped.

    Raises:
        BundleError: If the folder holds no bundle, or one that contradicts itself or is of a newer schema.
        IntegrityError: If a file of it is missing, truncated, altered, a link, or not the bundle's own.
    """
    folder = Path(path).resolve()
    if not folder.is_dir():
        raise BundleError(f"there is no bundle at {os.fspath(path)!r}: give the folder that holds {MANIFEST}")
    try:
        manifest = parse_manifest(_read_manifest(folder))
    except RecursionError as error:
        raise BundleError(f"{MANIFEST} is nested too deeply: this is not a coterie bundle") from error
    _check_names(manifest)
    for name, entry in manifest.files.items():
        _check_file(folder, name, entry)
    _check_tensors(folder / WEIGHTS, manifest)
    text = None
    if manifest.text is not None:
        text = TextEncoder.load(folder / manifest.text.tokenizer, manifest.text)
    return Bundle(folder, manifest, text)


def _unknown(name: str, known: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    shown = name if len(name) <= 80 else name[:77] + "..."
    close = get_close_matches(name[:200], known, n=3, cutoff=0.6)
    if close:
        hint = "did you mean " + " or ".join(repr(match) for match in close) + "?"
    elif len(known) <= 10:
        hint = "there are " + ", ".join(repr(task) for task in known)
    else:
        hint = f"list the {len(known)} tasks to see their names"
    return f"there is no task {shown!r}: {hint}"


def _read_manifest(folder: Path) -> bytes:
    file = folder / MANIFEST
    try:
        with _open_regular(file) as stream:
            return stream.read()
    except FileNotFoundError:
        raise BundleError(f"{folder.name!r} holds no {MANIFEST}: this is not a coterie bundle") from None


def _check_names(manifest: Manifest) -> None:
    """Check that the manifest agrees with itself and names only files directly inside its folder."""
    for name in manifest.files:
        if name in {"", ".", "..", MANIFEST} or any(mark in name for mark in "/\\\0"):
            raise IntegrityError(f"{MANIFEST} lists {name!r}, which is not a file of the bundle: {_AGAIN}")
    needed = {WEIGHTS: "the weights", manifest.router: "the router graph"}
    needed |= {entry.graph: f"the graph of task {entry.task.name!r}" for entry in manifest.tasks}
    if manifest.text is not None:
        needed[manifest.text.tokenizer] = "the tokenizer"
    for name, purpose in needed.items():
        if name not in manifest.files:
            raise IntegrityError(f"{MANIFEST} does not list {name!r}, {purpose}: {_AGAIN}")
    if manifest.plan.tasks != tuple(entry.task.name for entry in manifest.tasks):
        raise BundleError(f"{MANIFEST}: the sharing plan is of other tasks than the task list: {_AGAIN}")
    if manifest.text is not None and manifest.inputs[0].dtype != "int64":
        raise BundleError(
            f"{MANIFEST}: text needs an int64 token input, not {manifest.inputs[0].dtype}: {_AGAIN}"
        )


def _open_regular(file: Path) -> BinaryIO:
    """Open a regular file for reading; a link or a device is refused, never followed."""
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise IntegrityError(
            f"{file.name!r} is a link or not a regular file: a bundle is a folder of plain files"
        )
    return file.open("rb")


def _check_file(folder: Path, name: str, entry: FileEntry) -> None:
    try:
        with _open_regular(folder / name) as stream:
            length = os.fstat(stream.fileno()).st_size
            if length != entry.length:
                state = "truncated" if length < entry.length else "too long"
                raise IntegrityError(f"{name!r} is {state}: {length} bytes, not {entry.length}; {_AGAIN}")
            digest = hashlib.sha256()
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except FileNotFoundError:
        raise IntegrityError(f"{name!r} is missing from the bundle: {_AGAIN}") from None
    except OSError as error:
        raise IntegrityError(f"{name!r} cannot be read ({error.strerror}): check its permissions") from error
    if digest.hexdigest() != entry.sha256:
        raise IntegrityError(f"{name!r} was altered or is of another bundle: its SHA-256 differs; {_AGAIN}")


def _check_tensors(weights: Path, manifest: Manifest) -> None:
    """Check that every tensor of every block lies inside its tensor of the weight file."""
    sizes = _tensor_bytes(weights)
    for block, uses in manifest.tensors.items():
        for use in uses:
            if use.tensor not in sizes:
                raise IntegrityError(
                    f"{weights.name!r} has no tensor for {use.name!r} of block {block!r}: {_AGAIN}"
                )
            item, length = sizes[use.tensor]
            if min(use.shape, default=0) < 0 or use.offset + item * math.prod(use.shape) > length:
                raise IntegrityError(f"{use.name!r} of block {block!r} reaches past its tensor: {_AGAIN}")


def _tensor_bytes(weights: Path) -> dict[str, tuple[int, int]]:
    """Return for each tensor of a safetensors file the bytes of an entry and of the whole."""
    length = weights.stat().st_size
    try:
        with weights.open("rb") as stream:
            header_length = int.from_bytes(stream.read(8), "little")
            if not 0 < header_length <= min(length - 8, _HEADER_LIMIT):
                raise ValueError("header length")
            header = json.loads(stream.read(header_length))
        body = length - 8 - header_length
        sizes = {}
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            start, end = tensor["data_offsets"]
            if not 0 <= start <= end <= body:
                raise ValueError("data offsets")
            sizes[name] = (_ITEM_BYTES[tensor["dtype"]], end - start)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{weights.name!r} is not a safetensors file: {_AGAIN}") from error
    return sizes
