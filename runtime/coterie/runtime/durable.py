"""Files that are there whole or not at all, also after a power cut."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: two writers at once are not kept apart there
    fcntl = None  # type: ignore[assignment]


CAN_LOCK = fcntl is not None


def write_file(file: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write a file beside its destination, readable to whom the mode says from the start, and rename it.

    Raises:
        OSError: If it cannot be written; it names the destination.
    """
    partial = file.with_name(f".{file.name}.partial-{secrets.token_hex(6)}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except OSError as error:
        error.filename, error.filename2 = str(file), None
        raise
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    flush_folder(file.parent)


def write_text(file: Path, text: str) -> None:
    """Write a text as ``write_file`` does, in UTF-8.

    Raises:
        OSError: If it cannot be written; it names the destination.
    """
    write_file(file, text.encode())


def copy_file(source: Path, destination: Path) -> None:
    """Copy a file's content, and wait until it is on the disk."""
    shutil.copyfile(source, destination)
    flush_file(destination)


def flush_file(file: Path) -> None:
    """Wait until a file's content is on the disk."""
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def flush_folder(folder: Path) -> None:
    """Wait until a folder's names are on the disk."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a folder against other writers; the system lets go of it when this process ends, in any way.

    Raises:
        OSError: If another one holds it, and it is not to be waited for.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
