"""Publishing a folder at once: it is written beside its destination, and renamed into place when whole."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from coterie.runtime.durable import CAN_LOCK, flush_folder, locked
from coterie.runtime.errors import ExportError
from coterie.runtime.manifest import MANIFEST

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def check_destination(destination: Path, *, overwrite: bool) -> None:
    """Check that a bundle may be published there.

    Raises:
        ExportError: If something is there that must not be replaced, or the folder above is missing.
    """
    if destination.is_symlink():
        raise ExportError(f"{destination.name} is a link: give the folder itself as the destination")
    if not destination.parent.is_dir():
        raise ExportError(f"{destination.parent} is not a folder: make it first")
    if not destination.exists():
        return
    if not overwrite:
        raise ExportError(f"{destination} exists: choose another destination, or allow it to be overwritten")
    empty = destination.is_dir() and not any(destination.iterdir())
    if not empty and not (destination / MANIFEST).is_file():
        raise ExportError(f"{destination} is not a bundle: it is not overwritten, choose another destination")


@contextlib.contextmanager
def staged_folder(destination: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder that becomes the destination if the block ends well, and vanishes if not.

    Raises:
        ExportError: See ``check_destination``; also if something was put there meanwhile.
    """
    destination = Path(os.path.abspath(destination))  # noqa: PTH100 - links in it must stay
    check_destination(destination, overwrite=overwrite)
    prefix = f".{destination.name}.partial-"
    _remove_leftovers(destination.parent, prefix)
    folder = destination.parent / f"{prefix}{secrets.token_hex(6)}"
    folder.mkdir()
    try:
        with locked(folder, wait=False):
            yield folder
            _flush(folder)
            check_destination(destination, overwrite=overwrite)
            _put_in_place(folder, destination)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(folder: Path, destination: Path) -> None:
    """Rename the folder to its destination; what was there is in ``folder`` afterwards, or gone."""
    try:
        # An empty folder is replaced by the rename itself, a full one is not.
        folder.rename(destination)
    except OSError:
        if not destination.exists():
            raise
        if not _exchange(folder, destination):
            _replace_by_two_renames(folder, destination)
    flush_folder(destination.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; return False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    arguments = (_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return bool(rename(*arguments) == 0)


def _replace_by_two_renames(folder: Path, destination: Path) -> None:
    """Swap where it takes two steps: for a moment there is no bundle, never half of one."""
    old = folder.with_name(f"{folder.name}.old")
    destination.rename(old)
    try:
        folder.rename(destination)
    except OSError:
        old.rename(destination)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _flush(folder: Path) -> None:
    if os.name != "posix":
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            _flush(path)
            continue
        with path.open("rb") as file:
            os.fsync(file.fileno())
    flush_folder(folder)


def _remove_leftovers(parent: Path, prefix: str) -> None:
    """Remove the folders of exports that were killed: nobody holds them."""
    if not CAN_LOCK:
        return
    for folder in sorted(parent.glob(f"{prefix}*")):
        with contextlib.suppress(OSError), locked(folder, wait=False):
            shutil.rmtree(folder, ignore_errors=True)
