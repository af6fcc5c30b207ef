"""What is to be said of a server, so that it can be started, asked and compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.peers.starting import started
from coterie.cli._bench._clients import Reply
from coterie.runtime import Bundle
from coterie.runtime.serving import Addresses
from coterie.runtime.serving._ports import free_ports

SCRIPTS = Path(__file__).parent / "scripts"
SETTINGS_VARIABLE = "PEER_SETTINGS"
"""Environment variable that tells a script in ``scripts/`` where its settings are."""

Floats = npt.NDArray[np.float32]
Settings = Mapping[str, Any]
Encoding = Literal["json", "binary"]
Running = Callable[[Path, Bundle, Path, Settings], AbstractContextManager[Addresses]]
"""Given the programs of its environment, whose task graphs it serves, an empty folder and its settings."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to run and ask a server, of which the best is compared."""

    settings: Settings
    """What the server is told; kept with the results."""
    encoding: Encoding = "json"
    """How numbers travel. Coterie is asked in the same way."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A server that somebody would take instead."""

    title: str
    requirements: str
    """``NAME.txt`` in ``benchmarks/peers`` lists what it needs."""
    ways: Mapping[str, Way]
    running: Running
    encode: Callable[[Encoding, str, str, Floats], bytes]
    """A whole HTTP request for a task's scores of rows ``[R, ...]``, given the task and the input's name."""
    decode: Callable[[Encoding, Reply], Floats]
    """The scores ``[R, C]`` that an answer to it says."""


def script_server(*arguments: str, ready: str, environment: Mapping[str, str] | None = None) -> Running:
    """Return how a server is started whose script is in ``scripts/``.

    Args:
        arguments: What its Python is told; ``{scripts}`` and ``{port}`` are replaced.
        ready: The path that answers 200 when it is ready; ``{last}`` is replaced by the last task.
        environment: Variables that it needs beside its settings.
    """

    @contextmanager
    def running(programs: Path, bundle: Bundle, folder: Path, settings: Settings) -> Iterator[Addresses]:
        port, *others = free_ports("127.0.0.1", 3)
        graphs = {entry.task.name: str(bundle.graph(entry.graph)) for entry in bundle.manifest.tasks}
        told = folder / "settings.json"
        told.write_text(json.dumps({"port": port, "others": others, "graphs": graphs, **settings}))
        command = [each.format(scripts=SCRIPTS, port=port) for each in arguments]
        variables = {
            SETTINGS_VARIABLE: str(told),
            "PYTHONPATH": str(SCRIPTS),
            # One core is all there is; libraries that ask how many the machine has would take more.
            "OMP_NUM_THREADS": "1",
            **(environment or {}),
        }
        address = f"127.0.0.1:{port}"
        with started(
            [str(programs / "python"), *command],
            folder,
            f"http://{address}{ready.format(last=[*graphs][-1])}",
            variables,
        ) as pid:
            yield Addresses(address, None, pid)

    return running


def post(path: str, body: bytes, headers: str = "") -> bytes:
    """Return an HTTP request with a JSON body; each of ``headers`` ends with CR LF."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def json_body(**values: object) -> bytes:
    """Return values as JSON."""
    return json.dumps(values, separators=(",", ":")).encode()


def json_scores(encoding: Encoding, reply: Reply) -> Floats:
    """Return what an answer ``{"scores": [[...]]}`` says."""
    del encoding
    return np.array(json.loads(reply.body)["scores"], np.float32)
