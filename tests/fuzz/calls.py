"""What may come over gRPC: messages that are right, wrong in one place, or noise; each of a seed."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from tritonclient.grpc import service_pb2

from .requests import TYPES, Target, mutated_bytes

SERVICE = "/inference.GRPCInferenceService/"
STREAM = "ModelStreamInfer"
ASKING = (
    "ModelMetadata",
    "ModelReady",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "ServerLive",
    "ServerReady",
    "ServerMetadata",
    "SystemSharedMemoryStatus",
    "TraceSetting",
    "NoSuchMethod",
)
NAMES = ("", "x", "nobody", "../../etc/passwd", "\0", "y" * 5000, "router", "text", "features", "scores")
NUMBERS = (0, 1, -1, 2, 5, 1 << 31, (1 << 63) - 1, -(1 << 63))


@dataclass(frozen=True)
class Call:
    """A call: its method and its messages as bytes; one, unless the method takes a stream."""

    kind: str
    method: str
    messages: tuple[bytes, ...]
    metadata: tuple[tuple[str, str], ...] = ()


def call(target: Target, seed: int) -> Call:
    """Return one case."""
    chooser = random.Random(seed)  # noqa: S311
    make: Callable[[Target, random.Random], Call] = chooser.choice(
        (_right, _changed, _changed, _changed, _raw, _raw, _noise, _noise, _other, _stream)
    )
    return make(target, chooser)


def question(target: Target, chooser: random.Random, *, raw: bool) -> Any:
    """Return a right ``ModelInferRequest``."""
    rows = chooser.choice((1, 1, 3))
    request = service_pb2.ModelInferRequest(model_name=chooser.choice((*target.tasks, "router")), id="i")
    shape = [rows, target.features] if target.features else [rows]
    datatype = "FP32" if target.features else "BYTES"
    tensor = request.inputs.add(name=target.input, datatype=datatype, shape=shape)
    numbers = [chooser.gauss(0, 1) for _ in range(rows * target.features)]
    texts = [b"good book"] * rows
    if raw:
        packed = struct.pack(f"<{len(numbers)}f", *numbers)
        request.raw_input_contents.append(packed if target.features else _bytes_tensor(texts))
    elif target.features:
        tensor.contents.fp32_contents.extend(numbers)
    else:
        tensor.contents.bytes_contents.extend(texts)
    if request.model_name == "router":
        names = [task.encode() for task in chooser.choices(target.tasks, k=rows)]
        task = request.inputs.add(name="task", datatype="BYTES", shape=[rows])
        row = request.inputs.add(name="row", datatype="INT64", shape=[rows])
        if raw:
            request.raw_input_contents.append(_bytes_tensor(names))
            request.raw_input_contents.append(struct.pack(f"<{rows}q", *range(rows)))
        else:
            task.contents.bytes_contents.extend(names)
            row.contents.int64_contents.extend(range(rows))
    request.outputs.add(name="scores")
    return request


def change(message: Message, chooser: random.Random) -> None:
    """Change one field of a message, or of a message in it."""
    fields = message.DESCRIPTOR.fields
    field = chooser.choice(fields)
    value = getattr(message, field.name)
    if field.message_type and field.message_type.GetOptions().map_entry:
        _change_map(value, chooser)
    elif field.message_type and field.is_repeated:
        if value and chooser.random() < 0.8:
            change(chooser.choice(value), chooser)
        else:
            value.add()
    elif field.message_type:
        change(value, chooser)
        value.SetInParent()
    elif field.is_repeated:
        if value and chooser.random() < 0.5:
            del value[chooser.randrange(len(value)) :]
        else:
            value.extend([_scalar(field, chooser)] * chooser.choice((1, 2, 100)))
    else:
        setattr(message, field.name, _scalar(field, chooser))


def _change_map(value: Any, chooser: random.Random) -> None:
    key = chooser.choice(
        ("timeout", "priority", "classification", "shared_memory_region", "binary_data_size", "", "x")
    )
    entry = value[key]
    if hasattr(entry, "int64_param"):
        kind = chooser.choice(("bool_param", "int64_param", "string_param", "none"))
        if kind != "none":
            odd = {"bool_param": True, "int64_param": chooser.choice(NUMBERS), "string_param": "soon"}
            setattr(entry, kind, odd[kind])


def _scalar(field: Any, chooser: random.Random) -> Any:
    if field.cpp_type == field.CPPTYPE_STRING:
        text = chooser.choice((*NAMES, *TYPES))
        return text if field.type == field.TYPE_STRING else text.encode()
    if field.cpp_type == field.CPPTYPE_BOOL:
        return True
    if field.cpp_type in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        return chooser.choice((0.0, float("nan"), float("inf"), -1.5))
    numbers = {
        field.CPPTYPE_UINT32: (0, 1, (1 << 32) - 1),
        field.CPPTYPE_UINT64: (0, 1, (1 << 64) - 1),
        field.CPPTYPE_INT32: (0, -1, (1 << 31) - 1),
    }
    return chooser.choice(numbers.get(field.cpp_type, NUMBERS))


def _bytes_tensor(items: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


def _right(target: Target, chooser: random.Random) -> Call:
    request = question(target, chooser, raw=chooser.random() < 0.5)
    return Call("right", "ModelInfer", (request.SerializeToString(),))


def _changed(target: Target, chooser: random.Random) -> Call:
    request = question(target, chooser, raw=chooser.random() < 0.5)
    for _ in range(chooser.randint(1, 2)):
        change(request, chooser)
    metadata = chooser.choice(((), (), (("grpc-timeout-x", "1"),), (("triton_grpc_error", "true"),)))
    return Call("changed", "ModelInfer", (request.SerializeToString(),), metadata)


def _raw(target: Target, chooser: random.Random) -> Call:
    """A question of which the raw bytes do not fit."""
    request = question(target, chooser, raw=True)
    match chooser.randrange(4):
        case 0:
            request.raw_input_contents[0] = mutated_bytes(request.raw_input_contents[0], chooser)
        case 1:
            request.inputs[0].datatype = chooser.choice(TYPES)
        case 2:
            del request.inputs[0].shape[:]
            request.inputs[0].shape.extend(chooser.choice(((), (0,), (-1, 4), (1 << 62, 1 << 62), (1, 1, 4))))
        case _:
            request.raw_input_contents.append(b"more")
    return Call("raw", "ModelInfer", (request.SerializeToString(),))


def _noise(target: Target, chooser: random.Random) -> Call:
    """Bytes that may be no message at all."""
    serialised = question(target, chooser, raw=chooser.random() < 0.5).SerializeToString()
    data = chooser.choice(
        (
            lambda: mutated_bytes(serialised, chooser),
            lambda: chooser.randbytes(chooser.randint(0, 100)),
            lambda: serialised[: chooser.randrange(len(serialised))],
            lambda: b"\x2a\x00" * 20_000,  # so many inputs of nothing
        )
    )()
    return Call("noise", chooser.choice(("ModelInfer", "ModelInfer", *ASKING)), (data,))


def _other(target: Target, chooser: random.Random) -> Call:
    method = chooser.choice(ASKING)
    message = service_pb2.ModelMetadataRequest(
        name=chooser.choice((*target.tasks, *NAMES)), version=chooser.choice(("", "1", "0", "x", "-1"))
    )
    return Call("other", method, (message.SerializeToString(),))


def _stream(target: Target, chooser: random.Random) -> Call:
    messages = tuple(
        (_changed if chooser.random() < 0.5 else _noise if chooser.random() < 0.2 else _right)(
            target, chooser
        ).messages[0]
        for _ in range(chooser.randint(0, 4))
    )
    metadata = chooser.choice(((), (("triton_grpc_error", "true"),)))
    return Call("stream", STREAM, messages, metadata)
