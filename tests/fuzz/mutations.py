"""What may happen to a bundle: damage, as disks and networks do it, and forgeries.

Every mutation changes the files of a copy, by a random generator: the same seed makes the same changes. A
forger makes the checksums fit; damage does not.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx

from coterie.runtime.manifest import MANIFEST, WEIGHTS, with_checksum

from .graphs import FORGERIES

FILE_OUTSIDE = "secret.bin"
TRICKS = (
    f"../outside/{FILE_OUTSIDE}",
    "/etc/passwd",
    "..",
    ".",
    "",
    "sub/file",
    "a\\b",
    "..\\..\\x",
    "C:x",
    "a\0b",
    "caf\u00e9.onnx",
    "\u2024\u2024/x",
    "router.onnx\u200b",
    "x" * 5000,
    MANIFEST,
    "nul",
    "-rf",
)
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1 << 31,
    1 << 63,
    10**400,
    -(10**400),
    1e308,
    0.5,
    "",
    "x",
    "\ufffd",
    "\x1b[31m",
    [],
    {},
    [[[]]],
    [1 << 62] * 40,
    {"a": {"b": {}}},
    "y" * 100_000,
)


class Case:
    """A copy of a bundle that is being changed.

    Attributes:
        folder: The copy.
        outside: A folder beside it, which nothing of the bundle may lead to.
        random: Where all choices come from.
    """

    def __init__(self, folder: Path, outside: Path, generator: random.Random) -> None:
        self.folder, self.outside, self.random = folder, outside, generator

    def names(self) -> list[str]:
        """Return the files that the manifest lists."""
        return sorted(self.manifest()["files"])

    def graphs(self) -> list[str]:
        """Return the graphs' files."""
        return [name for name in self.names() if name.endswith(".onnx")]

    def manifest(self) -> dict[str, Any]:
        """Return the manifest."""
        content: dict[str, Any] = json.loads((self.folder / MANIFEST).read_bytes())
        return content

    def write_manifest(self, content: dict[str, Any]) -> None:
        """Replace the manifest, mostly with its own checksum made to fit."""
        if self.random.random() < 0.95:
            content = with_checksum(content)
        (self.folder / MANIFEST).write_text(json.dumps(content, indent=1), encoding="utf-8")

    def seal(self) -> None:
        """Put the lengths and checksums of the files as they are now into the manifest, as a forger would."""
        content = self.manifest()
        for name in content["files"]:
            data = (self.folder / name).read_bytes()
            content["files"][name] = {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        self.write_manifest(content)


Mutation = Callable[[Case], None]


# Damage: bytes, whatever they mean.


def _bytes(data: bytes, choose: random.Random) -> bytes:
    changed = bytearray(data)
    start = choose.randrange(len(data) + 1)
    end = min(len(data), start + choose.choice((1, 4, 64, 1024)))
    action = choose.choice(("flip", "flip", "flip", "cut", "end", "zero", "repeat", "insert", "empty"))
    if action == "flip" and data:
        for _ in range(choose.choice((1, 1, 2, 8, 64))):
            changed[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
    elif action == "cut":
        del changed[start:end]
    elif action == "end":
        del changed[start:]
    elif action == "zero":
        changed[start:end] = bytes(end - start)
    elif action == "repeat":
        changed[start:start] = data[start:end]
    elif action == "insert":
        changed[start:start] = choose.randbytes(choose.choice((1, 8, 100)))
    elif action == "empty":
        changed.clear()
    return bytes(changed)


def damage_a_file(case: Case) -> None:
    file = case.folder / case.random.choice(case.names())
    file.write_bytes(_bytes(file.read_bytes(), case.random))


def damage_the_manifest(case: Case) -> None:
    file = case.folder / MANIFEST
    file.write_bytes(_bytes(file.read_bytes(), case.random))


def swap_two_files(case: Case) -> None:
    one, two = case.random.sample(case.names(), 2)
    (case.folder / one).rename(case.folder / "third")
    (case.folder / two).rename(case.folder / one)
    (case.folder / "third").rename(case.folder / two)


def replace_by_something_else(case: Case) -> None:
    """A link, a folder, a pipe, a socket or a file of holes where a file should be."""
    file = case.folder / case.random.choice([*case.names(), MANIFEST])
    secret, held = case.outside / FILE_OUTSIDE, case.outside.parent / "moved"
    kind = case.random.choice(
        ("gone", "link", "link inside", "hard link", "folder", "pipe", "socket", "holes")
    )
    content = file.read_bytes()
    file.unlink()
    if kind == "link":
        file.symlink_to(secret)
    elif kind == "link inside":
        held.write_bytes(content)
        shutil.move(held, case.folder / "moved")
        file.symlink_to("moved")
    elif kind == "hard link":
        # To a file of its own: that one is opened, to be refused, is as it should be.
        linked = case.outside / f"linked-{case.random.randrange(1 << 30)}"
        linked.write_bytes(content if case.random.random() < 0.5 else content[::-1])
        file.hardlink_to(linked)
    elif kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "socket":
        here = Path.cwd()
        os.chdir(case.folder)  # a socket's path is at most 100 bytes long
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(file.name)
        os.chdir(here)
    elif kind == "holes":
        with file.open("wb") as stream:
            stream.truncate(case.random.choice((len(content), 1 << 40)))


# Forgeries of the manifest.


def _places(content: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    return [at, *(place for key, value in inner for place in _places(value, (*at, key)))]


def forge_a_value(case: Case) -> None:
    """Anything anywhere in the manifest: removed, odd, doubled, or of another place."""
    content = case.manifest()
    places = _places(content)[1:]
    place = case.random.choice(places)
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    action = case.random.choice(("odd", "odd", "remove", "trick", "move", "double", "next"))
    value = parent[place[-1]]
    if action == "remove":
        del parent[place[-1]]
    elif action == "trick":
        parent[place[-1]] = case.random.choice(TRICKS)
    elif action == "move":
        other: Any = content
        for key in case.random.choice(places):
            other = other[key]
        parent[place[-1]] = copy.deepcopy(other)
    elif action == "double" and isinstance(value, list) and value:
        value.append(case.random.choice(value))
    elif action == "next" and type(value) in (int, float):
        parent[place[-1]] = value + case.random.choice((-1, 1))
    else:
        parent[place[-1]] = case.random.choice(ODD)
    case.write_manifest(content)


def forge_a_file_name(case: Case) -> None:
    """A file of the bundle under a name that leads elsewhere, wherever the manifest names it."""
    content, trick = case.manifest(), case.random.choice(TRICKS)
    name = case.random.choice(case.names())
    case.write_manifest(json.loads(json.dumps(content).replace(json.dumps(name), json.dumps(trick))))


def forge_json(case: Case) -> None:
    """JSON that readers disagree on, or that costs them much."""
    file = case.folder / MANIFEST
    content = case.manifest()
    content.pop("checksum", None)
    text = json.dumps(content, indent=1)
    forged = case.random.choice(
        (
            lambda: text.replace("{", '{"files": {},', 1),
            lambda: text.replace("{", '{"name": "other",', 1),
            lambda: "[" * 300_000,
            lambda: '{"a":' * 100_000 + "1" + "}" * 100_000,
            lambda: text.replace("{", '{"schema_version": ' + "9" * 6000 + ",", 1),
            lambda: text.replace("{", '{"provenance": ' + "[" * 900 + "]" * 900 + ",", 1),
            lambda: "\ufeff" + text,
            lambda: text + text,
            lambda: text + "\0",
            lambda: text.replace('"', "'"),
            lambda: text.replace("1", "NaN", 3),
            lambda: text.replace("0", "1e999", 3),
        )
    )()
    file.write_text(forged, encoding="utf-8")


# Forgeries of the other files; the checksums are made to fit.


def forge_bytes(case: Case) -> None:
    damage_a_file(case)
    case.seal()


def forge_weights(case: Case) -> None:
    """A header of the weight file that lies, or costs much to read."""
    file = case.folder / WEIGHTS
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    name = case.random.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    text: str | None = None
    action = case.random.randrange(11)
    if action == 0:
        entry["data_offsets"] = case.random.choice(
            ([0, 1 << 62], [-8, 8], [8, 0], [0.5, 8], [True, 8], [], "x")
        )
    elif action == 1:
        entry["shape"] = case.random.choice(
            ([1 << 40, 1 << 40], [-1], [], [0], [1 << 62] * 50_000, None, [0.5])
        )
    elif action == 2:
        entry["dtype"] = case.random.choice(("F64", "F4", "", None, 3, "BOOL", "I8"))
    elif action == 3:
        del header[name]
    elif action == 4:
        header[case.random.choice(TRICKS)] = entry
    elif action == 5:
        first, last = json.dumps(header), json.dumps({name: entry})
        text = first[:-1] + "," + last[1:]
    elif action == 6:
        text = "[" * 200_000
    elif action == 7:
        text = json.dumps(header).replace("{", '{"__metadata__": ' + "9" * 6000 + ",", 1)
    elif action == 8:
        text = " " * case.random.choice((1, 1 << 20))
    elif action == 9:
        body = body[: case.random.randrange(len(body))]
    else:
        other = header[case.random.choice(list(header))]
        entry["data_offsets"] = other.get("data_offsets", [0, 0])
    encoded = (json.dumps(header) if text is None else text).encode()
    size = len(encoded)
    if case.random.random() < 0.1:
        size = case.random.choice((0, 1, 1 << 40, (1 << 64) - 1, 99_999_999, size - 1))
    file.write_bytes(size.to_bytes(8, "little") + encoded + body)
    case.seal()


def forge_a_graph(case: Case) -> None:
    """A valid ONNX file that is not what it should be."""
    file = case.folder / case.random.choice(case.graphs())
    model = onnx.load(file, load_external_data=False)
    case.random.choice(FORGERIES)(model, case.random, case.folder, case.outside / FILE_OUTSIDE)
    file.write_bytes(model.SerializeToString())
    case.seal()


def forge_the_tokenizer(case: Case) -> None:
    """The tokenizers library reads it, which has errors of its own."""
    file = case.folder / "tokenizer.json"
    if not file.exists():
        forge_bytes(case)
        return
    content = json.loads(file.read_text(encoding="utf-8"))
    place = case.random.choice(_places(content)[1:])
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = case.random.choice(ODD)
    if case.random.random() < 0.3:
        content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "ABwCAAACAAAA"}
    file.write_text(json.dumps(content), encoding="utf-8")
    case.seal()


DAMAGE: Sequence[Mutation] = (damage_a_file, damage_the_manifest, swap_two_files, replace_by_something_else)
FORGED: Sequence[Mutation] = (
    forge_a_value,
    forge_a_value,
    forge_a_file_name,
    forge_json,
    forge_bytes,
    forge_bytes,
    forge_weights,
    forge_a_graph,
    forge_a_graph,
    forge_the_tokenizer,
)
