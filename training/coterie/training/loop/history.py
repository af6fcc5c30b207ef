"""The history of a training: one JSON line an epoch, and the same as TensorBoard events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from coterie.runtime.durable import write_text


class History:
    """Appends an epoch's record to ``history.jsonl`` and its scalars to TensorBoard."""

    def __init__(self, folder: Path, *, keep: int = 0) -> None:
        """Open the history of a run folder, keeping the first ``keep`` epochs of what is there."""
        self._path = folder / "history.jsonl"
        self.records: list[dict[str, Any]] = read_history(folder)[:keep]
        lines = "".join(json.dumps(record) + "\n" for record in self.records)
        write_text(self._path, lines)
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=keep + 1)

    def add(self, record: dict[str, Any]) -> None:
        """Append the record of epoch ``record["epoch"]``."""
        self.records.append(record)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        for name, value in _scalars(record):
            self._writer.add_scalar(name, value, record["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Read a run folder's history; a last line cut off by a kill is left out."""
    path = folder / "history.jsonl"
    records: list[dict[str, Any]] = []
    if not path.is_file():
        return records
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def _scalars(record: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found = []
    for name, value in record.items():
        if isinstance(value, dict):
            found += _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((prefix + name, float(value)))
    return found
