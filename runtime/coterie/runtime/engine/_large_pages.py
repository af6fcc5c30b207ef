"""Large pages for what a session packs: tens of megabytes of weights are read for a few questions.

In pages of 4 KiB a core waits for the table of pages as well as for the memory, in a virtual machine twice.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_ALLOWED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_PAGE = 2 * 1024 * 1024
_HUGEPAGE, _COLLAPSE = 14, 25
"""Of Linux's madvise: pages of this range may be large; make them so at once (since 6.1)."""

Range = tuple[int, int]


@contextlib.contextmanager
def large_pages() -> Iterator[None]:
    """Move what memory the process takes inside the ``with`` block to large pages, where there are any.

    Nothing else changes, and where it cannot be done nothing does. Small things stay where they are.
    """
    before = _anonymous() if _are_allowed() else None
    yield
    if before is None:
        return
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is None:
        return
    for begin, end in _without(_anonymous(), before):
        first, last = -(-begin // _PAGE) * _PAGE, end // _PAGE * _PAGE
        if last > first:
            for advice in (_HUGEPAGE, _COLLAPSE):
                madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), advice)


def _are_allowed() -> bool:
    if sys.platform != "linux":
        return False
    try:
        return "[never]" not in _ALLOWED.read_text(encoding="ascii")
    except (OSError, ValueError):
        return False


def _anonymous() -> list[Range]:
    """Return the ranges of memory that are of no file and not shared, in order."""
    found = []
    try:
        lines = _MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        place, mode, _, _, inode, *name = line.split(maxsplit=5)
        if mode == "rw-p" and inode == "0" and (not name or name[0].startswith(("[heap]", "[anon"))):
            begin, _, end = place.partition("-")
            found.append((int(begin, 16), int(end, 16)))
    return found


def _without(ranges: list[Range], taken: list[Range]) -> Iterator[Range]:
    """Give the parts of ranges that none of the taken ones covers; both are in order and do not overlap."""
    for begin, end in ranges:
        at = begin
        for start, stop in taken:
            if stop <= at or start >= end:
                continue
            if start > at:
                yield at, start
            at = stop
        if at < end:
            yield at, end
