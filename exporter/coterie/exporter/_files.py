"""Names and checksums of a bundle's files."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from coterie.runtime.manifest import FileEntry
from coterie.runtime.tasks import ROUTER

ROUTER_FILE = f"{ROUTER}.onnx"
HOST_FILE, DEVICE_FILE = f"{ROUTER}.host.onnx", f"{ROUTER}.device.onnx"
REPORT_FILE = "report.html"

_SLUG_LENGTH = 60
_HASH_LENGTH = 8
_OWN = frozenset(name.removesuffix(".onnx") for name in (ROUTER_FILE, HOST_FILE, DEVICE_FILE))
# Windows keeps these for devices, with any ending.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def graph_files(tasks: Sequence[str]) -> list[str]:
    """Return a file name for each task's graph, safe on every file system and distinct when case is ignored.

    A name that is not safe as it is, or not alone, gets a short hash of the task's name.
    """
    slugs = [_slug(name) for name in tasks]
    alike = Counter(slug.casefold() for slug in slugs)
    taken = {slug.casefold() for slug, name in zip(slugs, tasks, strict=True) if slug == name}
    files = []
    for name, slug in zip(tasks, slugs, strict=True):
        if slug == name and alike[slug.casefold()] == 1 and not _is_reserved(slug):
            files.append(f"{slug}.onnx")
            continue
        digest = hashlib.sha256(name.encode()).hexdigest()
        length = _HASH_LENGTH
        while f"{slug}-{digest[:length]}".casefold() in taken:
            length += 1
        taken.add(f"{slug}-{digest[:length]}".casefold())
        files.append(f"{slug}-{digest[:length]}.onnx")
    return files


def describe(path: Path) -> FileEntry:
    """Return a file's length and SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileEntry(length=file.tell(), sha256=digest.hexdigest())


def _slug(name: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:_SLUG_LENGTH]
    return slug or "task"


def _is_reserved(slug: str) -> bool:
    return slug.casefold() in _OWN or _DEVICES.fullmatch(slug) is not None
