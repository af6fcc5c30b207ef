"""A bundle on disk: read, verify, and only then let anything be mapped."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from coterie.runtime.bundle._consistency import check_names, check_sizes, check_tensors
from coterie.runtime.bundle._files import AGAIN, check_file, read_file
from coterie.runtime.bundle._graph_check import check_graph
from coterie.runtime.bundle._safetensors import TensorIndex, read_index
from coterie.runtime.bundle._signature import PublicKey, check_signature
from coterie.runtime.errors import BundleError, IntegrityError, UnknownTaskError
from coterie.runtime.manifest import MANIFEST, WEIGHTS, Manifest, parse_manifest
from coterie.runtime.tasks import TaskSpec
from coterie.runtime.text import TextEncoder

_LONGEST_MANIFEST = 1 << 28
_LONGEST_GRAPH = (1 << 31) - 1
"""A protobuf message, and so an ONNX file, is at most this long."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: its folder, its manifest and, for text, its encoder."""

    path: Path
    manifest: Manifest
    text: TextEncoder | None = None

    @cached_property
    def _weights(self) -> TensorIndex:
        return read_index(self.path / WEIGHTS)

    def graph(self, name: str) -> Path:
        """Return the path of a graph, after a look into it: it may hold and refer to what an export writes.

        Raises:
            IntegrityError: If it does not, or cannot be read.
        """
        file = self.path / name
        try:
            content = read_file(file, _LONGEST_GRAPH)
        except FileNotFoundError:
            raise IntegrityError(f"{name!r} is missing from the bundle: {AGAIN}") from None
        check_graph(name, content, self._weights)
        return file

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


def load_bundle(path: str | os.PathLike[str], *, public_key: PublicKey | None = None) -> Bundle:
    """Read and verify a bundle: every file's kind, length and SHA-256, before any is mapped.

    Args:
        path: The bundle's folder.
        public_key: An Ed25519 public key, as a PEM file's path or its bytes. The bundle must then be signed
            with its private half; that is checked before anything else is read. Needs ``coterie[sign]``.

    Raises:
        BundleError: If the folder holds no bundle, or one that contradicts itself or is of a newer schema.
        IntegrityError: If a file of it is missing, truncated, altered, a link, or not the bundle's own.
        SignatureError: If a key is given and the manifest is not signed with it.
        ConfigError: If the key is none.
        MissingExtraError: If a key is given and ``coterie[sign]`` is not installed.
    """
    folder = Path(path).resolve()
    if not folder.is_dir():
        raise BundleError(f"there is no bundle at {os.fspath(path)!r}: give the folder that holds {MANIFEST}")
    content = read_manifest(folder)
    if public_key is not None:
        check_signature(folder, content, public_key)
    manifest = parse_manifest(content)
    check_names(manifest)
    check_sizes(manifest)
    for name, entry in manifest.files.items():
        check_file(folder / name, entry)
    check_tensors(read_index(folder / WEIGHTS), manifest)
    text = None
    if manifest.text is not None:
        text = TextEncoder.load(folder / manifest.text.tokenizer, manifest.text)
    return Bundle(folder, manifest, text)


def read_manifest(folder: Path) -> bytes:
    """Return the manifest's bytes.

    Raises:
        BundleError: If the folder holds none.
        IntegrityError: If it is no regular file, or cannot be read.
    """
    try:
        return read_file(folder / MANIFEST, _LONGEST_MANIFEST)
    except FileNotFoundError:
        raise BundleError(f"{folder.name!r} holds no {MANIFEST}: this is not a coterie bundle") from None


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
