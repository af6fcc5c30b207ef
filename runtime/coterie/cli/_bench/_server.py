"""A server on this machine: single questions to many tasks, over HTTP and gRPC."""

from __future__ import annotations

import asyncio
import itertools
import json
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from coterie.cli._bench._clients import connect
from coterie.cli._bench._loops import Measured, closed_loop
from coterie.cli._bench._questions import Questions
from coterie.cli._bench._served import Served
from coterie.runtime.serving import running_server
from coterie.runtime.serving.grpc._protocol import messages
from coterie.runtime.serving.models._metadata import DATATYPE_OF, TEXT

_WAYS = {"HTTP": "binary", "gRPC": "grpc"}
_MANY = 32
_PREPARED = 4096


@dataclass(frozen=True)
class Tensor:
    """One input of one question, as it goes over the wire."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes


def measure(
    bundle: Path,
    questions: Questions,
    tasks: Sequence[str],
    *,
    seconds: float,
    threads: int,
    on_progress: Callable[[str], None],
) -> tuple[float, list[Served]]:
    """Start a server with one worker and ask it in every way.

    Args:
        bundle: The bundle's folder.
        questions: What is asked about; question i is about one of these rows.
        tasks: Their names; asked about equally often, in random order.
        seconds: For each way.
        threads: Threads of a run.
        on_progress: Called with a line of text before each way.

    Returns:
        Seconds until the server answered, and what each way took.
    """
    drawn = np.random.default_rng(0).permutation(_PREPARED) % len(tasks)
    asked = [(tasks[number], _tensors(questions, at % len(questions))) for at, number in enumerate(drawn)]
    encoded = {"binary": [_http(*each) for each in asked], "grpc": [_grpc(*each) for each in asked]}
    served = []
    began = time.perf_counter()
    with running_server(bundle, threads=threads) as at:
        started = time.perf_counter() - began
        for name, transport in _WAYS.items():
            address = at.http if transport == "binary" else str(at.grpc)
            for clients in (1, _MANY):
                on_progress(f"server: {name}, {clients} at a time")
                found = asyncio.run(_ask(transport, address, encoded[transport], clients, seconds))
                served.append(_served(name, clients, found))
    return round(started, 2), served


def _served(transport: str, clients: int, found: Measured) -> Served:
    return Served(
        transport,
        clients,
        round(found.rate, 1),
        round(1000 * found.quantile(0.5), 3),
        round(1000 * found.quantile(0.99), 3),
        found.failures.total(),
        round(found.client_cpu, 2),
    )


async def _ask(
    transport: str, address: str, requests: Sequence[bytes], clients: int, seconds: float
) -> Measured:
    connections = [await connect(transport, address) for _ in range(clients)]
    try:
        await closed_loop(connections, itertools.cycle(requests), min(1.0, seconds))
        return await closed_loop(connections, itertools.cycle(requests), seconds)
    finally:
        for each in connections:
            await each.close()


def _tensors(questions: Questions, row: int) -> list[Tensor]:
    tensors = []
    for name, values in questions.inputs.items():
        if questions.texts is not None and values.dtype == np.int64:
            text = questions.texts[row].encode()
            alone = len(questions.inputs) == 1
            tensors.append(
                Tensor(TEXT if alone else name, "BYTES", (1,), struct.pack("<I", len(text)) + text)
            )
        else:
            own = values[row : row + 1]
            tensors.append(Tensor(name, DATATYPE_OF[own.dtype.name], own.shape, own.tobytes()))
    return tensors


def _http(task: str, tensors: Sequence[Tensor]) -> bytes:
    body = {
        "inputs": [
            {
                "name": each.name,
                "datatype": each.datatype,
                "shape": each.shape,
                "parameters": {"binary_data_size": len(each.raw)},
            }
            for each in tensors
        ],
        "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
    }
    text = json.dumps(body, separators=(",", ":")).encode()
    raw = b"".join(each.raw for each in tensors)
    head = (
        f"POST /v2/models/{quote(task)}/infer HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {len(text)}\r\n"
        f"Content-Length: {len(text) + len(raw)}\r\n\r\n"
    )
    return head.encode() + text + raw


def _grpc(task: str, tensors: Sequence[Tensor]) -> bytes:
    message: Any = messages()["ModelInferRequest"](model_name=task)
    for each in tensors:
        message.inputs.add(name=each.name, datatype=each.datatype, shape=each.shape)
        message.raw_input_contents.append(each.raw)
    message.outputs.add(name="scores")
    serialised: bytes = message.SerializeToString()
    return serialised
