"""What is made inside ``large_pages`` lies in large pages, where Linux has them."""

from __future__ import annotations

import mmap
import platform
import re
import sys
from pathlib import Path

import pytest

from coterie.runtime.engine._large_pages import _are_allowed, _without, large_pages

_MEGABYTE = 1024 * 1024


def large_megabytes() -> float:
    text = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"AnonHugePages: *(\d+) kB", text)
    return int(found[1]) / 1024 if found else 0.0


@pytest.mark.skipif(
    sys.platform != "linux"
    or not _are_allowed()
    or tuple(map(int, platform.release().split(".")[:2])) < (6, 1),
    reason="this system has no large pages, or makes none at once",
)
def test_what_is_taken_inside_lies_in_large_pages() -> None:
    before = large_megabytes()
    content = bytes(range(256)) * (16 * _MEGABYTE // 256)
    with large_pages():
        taken = mmap.mmap(-1, len(content), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        taken.write(content)
    assert large_megabytes() - before >= 12  # its ends may lie across
    assert taken[:] == content
    taken.close()


def test_where_there_are_none_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("coterie.runtime.engine._large_pages._ALLOWED", tmp_path / "enabled")
    with large_pages():
        pass
    (tmp_path / "enabled").write_text("always madvise [never]")
    assert not _are_allowed()


def test_what_was_there_before_is_left() -> None:
    ranges, taken = [(0, 10), (20, 30), (40, 50)], [(0, 4), (6, 8), (18, 32), (45, 60)]
    assert list(_without(ranges, taken)) == [(4, 6), (8, 10), (40, 45)]
    assert list(_without(ranges, [])) == ranges
