"""What may come over HTTP: requests that are right, wrong in one place, or noise; each of a seed.

Nothing in a request looks like a path of the server or like a stack trace, so that what an answer repeats
of a request is not taken for a leak.
"""

from __future__ import annotations

import copy
import gzip
import json
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    0.5,
    1 << 31,
    1 << 63,
    10**30,
    -(10**30),
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\ud800",
    "\0",
    "../../etc/passwd",
    "FP32",
    "BYTES",
    "y" * 5000,
    [],
    {},
    [[[]]],
    [None],
    [1 << 62] * 4,
    {"a": {"b": []}},
    [[1.0], [1.0, 2.0]],
)
TYPES = ("FP32", "FP64", "FP16", "BF16", "INT64", "INT8", "UINT8", "BOOL", "BYTES", "FP99")


@dataclass(frozen=True)
class Target:
    """What is asked: a bundle's tasks, and its one input."""

    tasks: tuple[str, ...]
    input: str
    features: int
    """Numbers in a row; 0 where the input is a text."""


@dataclass(frozen=True)
class HttpCase:
    """A request as bytes."""

    kind: str
    data: bytes
    whole: bool = True
    """Whether an answer must come; what is no whole request of HTTP may end in a closed connection."""


def http_case(target: Target, seed: int) -> HttpCase:
    """Return one case."""
    chooser = random.Random(seed)  # noqa: S311
    make: Callable[[Target, random.Random], HttpCase] = chooser.choice(
        (_right, _tree, _tree, _tree, _typed, _typed, _bytes, _binary, _binary, _packed, _address, _noise)
    )
    return make(target, chooser)


def message(method: str, path: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """Return a whole request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    given = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    lines += [f"{name}: {value}" for name, value in given.items()]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "replace") + body


def mutated_tree(value: Any, chooser: random.Random) -> Any:
    """Return JSON that is another in one place."""
    tree = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in list(items):
            places.append((node, key))
            if isinstance(child, dict | list):
                walk(child)

    walk(tree)
    if not places or chooser.random() < 0.03:
        return chooser.choice(ODD)
    node, key = chooser.choice(places)
    match chooser.randrange(4):
        case 0 if isinstance(node, dict):
            del node[key]
        case 1 if isinstance(node, list):
            node.extend([copy.deepcopy(node[key])] * chooser.choice((1, 2, 50)))
        case 2:
            node[key] = [node[key]] if chooser.random() < 0.5 else {"x": node[key]}
        case _:
            node[key] = chooser.choice(ODD)
    return tree


def mutated_bytes(data: bytes, chooser: random.Random) -> bytes:
    """Return bytes that are others in a few places."""
    changed = bytearray(data)
    for _ in range(chooser.randint(1, 4)):
        at = chooser.randrange(len(changed) + 1)
        match chooser.randrange(4):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chooser.randrange(8)
            case 1:
                changed[at:at] = chooser.randbytes(chooser.randint(1, 8))
            case 2:
                del changed[at : at + chooser.randint(1, 16)]
            case _:
                changed[at:at] = changed[at : at + 32]
    return bytes(changed)


def _rows(target: Target, chooser: random.Random, rows: int) -> list[Any]:
    if not target.features:
        return [" ".join(chooser.choices(("good", "bad", "book", "unheard"), k=3)) for _ in range(rows)]
    return [[chooser.gauss(0, 1) for _ in range(target.features)] for _ in range(rows)]


def infer_json(target: Target, chooser: random.Random) -> tuple[str, dict[str, Any]]:
    """Return a right question: its path and its JSON."""
    rows = chooser.choice((1, 1, 2, 5))
    data = _rows(target, chooser, rows)
    tensor: dict[str, Any] = {"name": target.input, "datatype": "BYTES", "shape": [rows], "data": data}
    if target.features:
        tensor |= {"datatype": "FP32", "shape": [rows, target.features]}
    body: dict[str, Any] = {
        "id": "i",
        "inputs": [tensor],
        "parameters": {"timeout": 5_000_000, "priority": 1},
    }
    model = chooser.choice((*target.tasks, "router"))
    if model == "router":
        body["inputs"].append(
            {
                "name": "task",
                "datatype": "BYTES",
                "shape": [rows],
                "data": chooser.choices(target.tasks, k=rows),
            }
        )
        body["inputs"].append(
            {"name": "row", "datatype": "INT64", "shape": [rows], "data": list(range(rows))}
        )
    body["outputs"] = [{"name": "scores", "parameters": {"binary_data": chooser.random() < 0.5}}]
    if chooser.random() < 0.3:
        body["outputs"][0]["parameters"] = {"classification": chooser.choice((1, 2, 100))}
    version = chooser.choice(("", "", "", "/versions/1"))
    return f"/v2/models/{model}{version}/infer", body


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def _right(target: Target, chooser: random.Random) -> HttpCase:
    path, body = infer_json(target, chooser)
    return HttpCase("right", message("POST", path, _dumped(body)))


def _tree(target: Target, chooser: random.Random) -> HttpCase:
    path, body = infer_json(target, chooser)
    for _ in range(chooser.randint(1, 2)):
        body = mutated_tree(body, chooser) if isinstance(body, dict) else body
    return HttpCase("json", message("POST", path, _dumped(body)))


def _typed(target: Target, chooser: random.Random) -> HttpCase:
    rows = _rows(target, chooser, chooser.choice((1, 3)))
    path, body = chooser.choice(
        (
            ("/predict", {"task": chooser.choice(target.tasks), "inputs": rows}),
            ("/ask", {"tasks": list(target.tasks[:2]), "inputs": rows}),
            ("/v2/repository/index", {"ready": True}),
            ("/tasks", {}),
        )
    )
    content = _dumped(mutated_tree(body, chooser))
    if chooser.random() < 0.2:
        content = mutated_bytes(content, chooser)
    return HttpCase("typed", message("POST", path, content))


def _bytes(target: Target, chooser: random.Random) -> HttpCase:
    path, body = infer_json(target, chooser)
    content = chooser.choice(
        (
            lambda: mutated_bytes(_dumped(body), chooser),
            lambda: chooser.randbytes(chooser.randint(0, 200)),
            lambda: b"[" * chooser.choice((10, 2000, 100_000)),
            lambda: b'{"inputs":' * chooser.choice((10, 2000, 50_000)),
            lambda: _dumped(body)[: chooser.randrange(200)],
        )
    )()
    return HttpCase("bytes", message("POST", path, content))


def _binary(target: Target, chooser: random.Random) -> HttpCase:
    """A question with a binary tensor, of which a length, a type or some bytes may be wrong."""
    path, body = infer_json(target, chooser)
    tensor = body["inputs"][0]
    values = tensor.pop("data")
    if target.features:
        raw = b"".join(struct.pack(f"<{len(row)}f", *row) for row in values)
    else:
        raw = b"".join(struct.pack("<I", len(text)) + text.encode() for text in values)
    tensor["parameters"] = {"binary_data_size": len(raw)}
    wrong = chooser.randrange(7)
    if wrong == 1:
        tensor["parameters"]["binary_data_size"] = chooser.choice((*ODD, len(raw) - 1, len(raw) + 1))
    elif wrong == 2:
        tensor["datatype"] = chooser.choice(TYPES)
    elif wrong == 3:
        tensor["shape"] = chooser.choice(([], [0], [1 << 40], [-1, 4], [1, 1, 4], [1 << 62, 0], "4", None))
    elif wrong == 4:
        raw = mutated_bytes(raw, chooser)
    elif wrong == 5:
        body = mutated_tree(body, chooser)
    head = _dumped(body)
    length: Any = len(head)
    if wrong == 6:
        length = chooser.choice((0, -1, len(head) - 1, len(head) + len(raw) + 1, "", "x", "9" * 40, "\u0664"))
    return HttpCase(
        "binary", message("POST", path, head + raw, {"Inference-Header-Content-Length": str(length)})
    )


@cache
def _bomb() -> bytes:
    return gzip.compress(b" " * (64 << 20), 1)


def _packed(target: Target, chooser: random.Random) -> HttpCase:
    path, body = infer_json(target, chooser)
    encoding = chooser.choice(("gzip", "deflate", "br", "identity", "gzip, gzip", "\u00e9"))
    packed = chooser.choice((gzip.compress, zlib.compress))(_dumped(body))
    if chooser.random() < 0.5:
        packed = mutated_bytes(packed, chooser)
    elif chooser.random() < 0.1:
        packed = _bomb()
    return HttpCase("packed", message("POST", path, packed, {"Content-Encoding": encoding}))


def _address(target: Target, chooser: random.Random) -> HttpCase:
    model = chooser.choice(
        (*target.tasks, "router", "nobody", "%00", "%ff", "a%2Fb", "..%2f..", "x" * 3000, "")
    )
    path = chooser.choice(
        (
            f"/v2/models/{model}",
            f"/v2/models/{model}/infer",
            f"/v2/models/{model}/ready",
            f"/v2/models/{model}/stats",
            f"/v2/models/{model}/config",
            f"/v2/models/{model}/versions/{chooser.choice(('1', '0', '-1', 'x', '1' * 5000, '%00'))}/infer",
            f"/v2/repository/models/{model}/{chooser.choice(('load', 'unload'))}",
            f"/v2/{model}",
            f"/{model}",
            "/v2/models/stats",
            "/v2/health/ready?x=1",
            "/docs.json",
            "/versions",
            "/%2e%2e/%2e%2e/etc/passwd",
            "//v2//models",
        )
    )
    method = chooser.choice(("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"))
    headers = chooser.choice(
        (
            {},
            {"Content-Type": chooser.choice(("text/plain", "multipart/form-data; boundary=x", "\u00e9", ""))},
            {"Accept": "text/html"},
            {"Expect": "100-continue"},
            {"X-Long": "z" * 8000},
            {"Cookie": "a=" + "b" * 100},
        )
    )
    body = chooser.choice((b"", b"{}", chooser.randbytes(20)))
    return HttpCase("address", message(method, path, body, headers))


def _noise(target: Target, chooser: random.Random) -> HttpCase:
    """No HTTP, or not the whole of it."""
    path, body = infer_json(target, chooser)
    content = _dumped(body)
    right = message("POST", path, content)
    data = chooser.choice(
        (
            lambda: mutated_bytes(right, chooser),
            lambda: mutated_bytes(right[: right.index(b"\r\n\r\n")], chooser) + b"\r\n\r\n" + content,
            lambda: right[: chooser.randrange(len(right))],
            lambda: chooser.randbytes(chooser.randint(1, 400)),
            lambda: message("POST", path, content, {"Content-Length": "-5"}),
            lambda: message("POST", path, content, {"Content-Length": "9" * 30}),
            lambda: message("POST", path, b"zz\r\n" + content, {"Transfer-Encoding": "chunked"}),
            lambda: message("BREW", path, content),
            lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        )
    )()
    return HttpCase("noise", data, whole=False)
