"""The demo's own folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from coterie.runtime.errors import CoterieError

_MARK = ".coterie-demo"


def prepare(folder: Path) -> None:
    """Make the folder, or empty the one an earlier demo made.

    Raises:
        CoterieError: If somebody else's files are in it.
    """
    if folder.exists() and not folder.is_dir():
        raise CoterieError(f"{folder} is a file: give another folder with --out")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).is_file():
        raise CoterieError(f"{folder} has files that no demo made: give another folder with --out")
    for name in ("runs", "bundles", "standalone"):
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()
    (folder / "bundles").mkdir()
