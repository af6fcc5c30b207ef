"""Where a command writes to: made, and refused before any work is done for it."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def make_parent(path: Path) -> None:
    """Make the folder that a file or folder is to lie in.

    Raises:
        OSError: If it cannot be made; it names ``path``.
    """
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from error


def check_file(file: Path) -> None:
    """Make a file's folder, and refuse a file that cannot be written there.

    Raises:
        OSError: If it cannot; it names ``file``.
    """
    make_parent(file)
    code = 0
    if file.is_dir():
        code = errno.EISDIR
    elif not os.access(file if file.exists() else file.absolute().parent, os.W_OK):
        code = errno.EACCES
    if code:
        raise OSError(code, os.strerror(code), str(file))
