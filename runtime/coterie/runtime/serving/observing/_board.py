"""What the workers of one server tell each other."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Names a folder that BentoML makes for a server and hands to all of its workers."""


def line_of(part: Mapping[str, Any]) -> bytes:
    """Return a line of a part of what a worker tells, by ``metrics``, ``statistics`` or what it is about."""
    return json.dumps(part, separators=(",", ":")).encode()


def read_told(content: bytes) -> dict[str, Any]:
    """Return what a worker told in such lines.

    Returns:
        ``metrics``, a list of parts for ``Sums.add``; ``statistics``, by version and model; and the rest.
    """
    told: dict[str, Any] = {"metrics": [], "statistics": {}}
    for line in content.splitlines():
        part = json.loads(line)
        if "metrics" in part:
            told["metrics"].append(part.pop("metrics"))
        for number, models in part.pop("statistics", {}).items():
            told["statistics"].setdefault(number, {}).update(models)
        told |= part
    return told


class Board:
    """A folder in which each worker has one file, that it alone writes.

    The file of a worker that has ended stays: what it counted was counted.

    Args:
        folder: The folder; ``None`` where there is one worker alone, or nobody to tell.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        # By the parent, whose workers' numbers belong together: the folder may outlive one server.
        self._mine = f"coterie-{os.getppid()}-"
        self._name = f"{self._mine}{os.getpid()}-{secrets.token_hex(4)}.json"
        self._written = b""
        self._read: dict[str, tuple[int, dict[str, Any]]] = {}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Return the board of the server that this process is a worker of."""
        folder = environment.get(_FOLDER)
        return cls(Path(folder) if folder else None)

    def write(self, content: bytes) -> None:
        """Put up what this worker tells, in the lines of ``line_of``, in place of what it told before."""
        if self._folder is None or content == self._written:
            return
        new = self._folder / f"{self._name}.new"
        new.write_bytes(content)
        new.replace(self._folder / self._name)
        self._written = content

    def others(self) -> list[dict[str, Any]]:
        """Return what the other workers told last, also those that have ended."""
        if self._folder is None:
            return []
        found = []
        for path in sorted(self._folder.glob(f"{self._mine}*.json")):
            if path.name == self._name:
                continue
            changed = path.stat().st_mtime_ns
            known = self._read.get(path.name)
            if known is None or known[0] != changed:
                known = self._read[path.name] = (changed, read_told(path.read_bytes()))
            found.append(known[1])
        return found
