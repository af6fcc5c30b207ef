"""Questions of one row to many tasks, as bytes on the wire, and what their answers say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2

from coterie.cli._bench._clients import Reply

Transport = Literal["grpc", "binary", "json"]
"""gRPC with raw tensors, HTTP with binary tensors, HTTP with JSON."""
TRANSPORTS: tuple[Transport, ...] = ("grpc", "binary", "json")
Traffic = Literal["uniform", "zipf"]
_HEADER = b"inference-header-content-length:"


class Told(NamedTuple):
    """What an answer says."""

    model: str
    version: str
    scores: npt.NDArray[np.float32]


def encode(
    transport: Transport, task: str, name: str, rows: npt.NDArray[np.float32], *, version: str = ""
) -> bytes:
    """Return a whole request for a task's scores of ``rows [R, ...]``; ``name`` is the input tensor's."""
    if transport == "grpc":
        message = service_pb2.ModelInferRequest(model_name=task, model_version=version)
        message.inputs.add(name=name, datatype="FP32", shape=rows.shape)
        message.outputs.add(name="scores")
        message.raw_input_contents.append(rows.tobytes())
        serialised: bytes = message.SerializeToString()
        return serialised
    tensor: dict[str, object] = {"name": name, "datatype": "FP32", "shape": list(rows.shape)}
    body: dict[str, object] = {"inputs": [tensor], "outputs": [{"name": "scores"}]}
    raw, own = b"", ""
    if transport == "binary":
        raw = rows.tobytes()
        tensor["parameters"] = {"binary_data_size": len(raw)}
        body["parameters"] = {"binary_data_output": True}
    else:
        tensor["data"] = rows.reshape(-1).tolist()
    text = json.dumps(body, separators=(",", ":")).encode()
    if transport == "binary":
        own = f"Inference-Header-Content-Length: {len(text)}\r\n"
    pinned = f"/versions/{version}" if version else ""
    head = (
        f"POST /v2/models/{task}{pinned}/infer HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\n{own}Content-Length: {len(text) + len(raw)}\r\n\r\n"
    )
    return head.encode() + text + raw


def decode(transport: Transport, reply: Reply) -> Told:
    """Return what an answer to such a request says."""
    if transport == "grpc":
        message = service_pb2.ModelInferResponse.FromString(reply.body)
        output = message.outputs[0]
        if message.raw_output_contents:
            flat = np.frombuffer(message.raw_output_contents[0], np.float32)
        else:
            flat = np.array(output.contents.fp32_contents, np.float32)
        return Told(message.model_name, message.model_version, flat.reshape(tuple(output.shape)))
    length, body = _head_length(reply), reply.body
    answer = json.loads(body if length is None else body[:length])
    output = answer["outputs"][0]
    flat = (
        np.array(output["data"], np.float32) if length is None else np.frombuffer(body[length:], np.float32)
    )
    return Told(answer["model_name"], answer["model_version"], flat.reshape(output["shape"]))


def order(traffic: Traffic, tasks: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the task of each of so many questions: all alike, or the k-th likeliest 1/k as likely."""
    likely = np.ones(tasks) if traffic == "uniform" else 1 / np.arange(1, tasks + 1)
    return np.random.default_rng(seed).choice(tasks, size=count, p=likely / likely.sum())


class Questions:
    """Requests made beforehand: for every task some of one row each, no two rows alike.

    Args:
        tasks: The models.
        name: Of their input.
        shape: Of one row.
        each: How many for every task.
        seed: Of the rows.
    """

    def __init__(
        self, tasks: Sequence[str], name: str, shape: Sequence[int], *, each: int = 64, seed: int = 0
    ) -> None:
        self.tasks, self.each = tuple(tasks), each
        generator = np.random.default_rng(seed)
        # A row that is asked of several tasks is computed once; so that nothing is won by that, none is.
        self.rows = generator.standard_normal((len(tasks), each, *shape)).astype(np.float32)
        """``[N, each, ...]``."""
        self.input = name

    def encoded(self, transport: Transport) -> list[list[bytes]]:
        """Return for each task its requests."""
        return [
            [encode(transport, task, self.input, row[None]) for row in rows]
            for task, rows in zip(self.tasks, self.rows, strict=True)
        ]

    def stream(self, transport: Transport, traffic: Traffic, count: int, seed: int) -> list[bytes]:
        """Return so many requests in the order in which they are sent."""
        return self.ordered(self.encoded(transport), traffic, count, seed)

    def ordered(
        self, requests: Sequence[Sequence[bytes]], traffic: Traffic, count: int, seed: int
    ) -> list[bytes]:
        """Return so many of the requests that each task has, in the order in which they are sent."""
        picks = np.random.default_rng(seed + 1).integers(self.each, size=count)
        return [
            requests[task][pick]
            for task, pick in zip(order(traffic, len(self.tasks), count, seed), picks, strict=True)
        ]


def _head_length(reply: Reply) -> int | None:
    head = reply.head.lower()
    at = head.find(_HEADER)
    return None if at < 0 else int(head[at + len(_HEADER) :].partition(b"\r")[0])
