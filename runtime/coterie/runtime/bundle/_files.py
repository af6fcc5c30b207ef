"""Reading a bundle's files: plain files only, each of the length and content that the manifest says."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

from coterie.runtime.errors import IntegrityError
from coterie.runtime.manifest import FileEntry

AGAIN = "copy or export the bundle again"
_CHUNK = 1 << 20
# Where the system has them: no link is followed, no pipe waited for, and no child process inherits the file.
_FLAGS = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
)


def read_file(file: Path, limit: int) -> bytes:
    """Return a file's content.

    Raises:
        FileNotFoundError: If there is none.
        IntegrityError: If it is no regular file, cannot be read, or is longer than ``limit`` bytes.
    """
    try:
        with _open_regular(file) as stream:
            content = stream.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(file, error) from error
    if len(content) > limit:
        raise IntegrityError(f"{file.name!r} is longer than {limit} bytes: this is not a coterie bundle's")
    return content


def check_file(file: Path, entry: FileEntry) -> None:
    """Check a file's kind, length and SHA-256, in that order: a wrong length is seen before anything is read.

    Raises:
        IntegrityError: If it is missing, a link, or not the file that the manifest lists.
    """
    try:
        with _open_regular(file) as stream:
            length = os.fstat(stream.fileno()).st_size
            if length != entry.length:
                state = "truncated" if length < entry.length else "too long"
                raise IntegrityError(f"{file.name!r} is {state}: {length} bytes, not {entry.length}; {AGAIN}")
            digest = hashlib.sha256()
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except FileNotFoundError:
        raise IntegrityError(f"{file.name!r} is missing from the bundle: {AGAIN}") from None
    except OSError as error:
        raise _unreadable(file, error) from error
    if digest.hexdigest() != entry.sha256:
        raise IntegrityError(
            f"{file.name!r} was altered or is of another bundle: its SHA-256 differs; {AGAIN}"
        )


def _open_regular(file: Path) -> BinaryIO:
    """Open a regular file for reading; a link or a device is refused, neither followed nor waited for."""
    try:
        descriptor = os.open(file, _FLAGS)
    except OSError as error:
        if file.is_symlink() or file.is_dir():
            raise _irregular(file) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _irregular(file)
    return os.fdopen(descriptor, "rb")


def _irregular(file: Path) -> IntegrityError:
    return IntegrityError(
        f"{file.name!r} is a link or not a regular file: a bundle is a folder of plain files"
    )


def _unreadable(file: Path, error: OSError) -> IntegrityError:
    return IntegrityError(f"{file.name!r} cannot be read ({error.strerror}): check its permissions")
