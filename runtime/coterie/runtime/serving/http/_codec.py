"""Bodies of the Open Inference Protocol v2 over HTTP: JSON, with binary tensors behind it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coterie.runtime.errors import InvalidInputError
from coterie.runtime.serving._failures import TooLargeError
from coterie.runtime.serving.access._callers import ANYBODY, Caller
from coterie.runtime.serving.models._classification import classes_of
from coterie.runtime.serving.models._metadata import ModelInfo, TensorInfo
from coterie.runtime.serving.models._questions import (
    Answer,
    Question,
    check_parameters,
    priority_of,
    timeout_of,
)
from coterie.runtime.serving.models._tensors import Tensor, from_json, from_raw, to_json, to_raw

_WINDOW_BITS = {"gzip": 31, "deflate": 15}


@dataclass(frozen=True)
class Asked:
    """A request's question, and how it wants to be answered."""

    question: Question
    id: str
    binary: bool
    """Whether outputs are binary unless they say otherwise."""
    binary_outputs: Mapping[str, bool]
    """What the outputs that are named in the request say themselves."""


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Return the body that was sent compressed.

    Raises:
        InvalidInputError: If the encoding is unknown or the body is not of it.
        TooLargeError: If more than ``limit`` bytes come out.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOW_BITS:
        raise InvalidInputError(f"content encoding {encoding[:40]!r}: send gzip, deflate or neither")
    plain = b""
    while True:  # gzip may have several members, one after the other (RFC 1952, 2.2)
        stream = zlib.decompressobj(_WINDOW_BITS[encoding])
        try:
            plain += stream.decompress(body, limit - len(plain) + 1)
        except zlib.error as error:
            raise InvalidInputError(f"the body is not {encoding}") from error
        if len(plain) > limit:
            raise TooLargeError(f"the body unpacks to more than the {limit} bytes that this server takes")
        if not stream.eof:
            raise InvalidInputError(f"the {encoding} body ends too soon")
        body = stream.unused_data
        if not body:
            return plain
        if encoding != "gzip":
            raise InvalidInputError(f"the {encoding} body goes on after its end")


def decode(
    model: str, version: str, body: bytes, header_length: str | None, caller: Caller = ANYBODY
) -> Asked:
    """Return what a request of somebody's asks.

    Raises:
        InvalidInputError: If the body is not a request of the protocol.
    """
    head, tail = _split(body, header_length)
    request = _object(head)
    parameters = _parameters(request, "the request")
    inputs, used = _inputs(request, tail)
    if used != len(tail):
        raise InvalidInputError(f"the body has {len(tail) - used} bytes more than its tensors take")
    outputs = _list(request, "outputs") if "outputs" in request else []
    names = [_name(output, "output") for output in outputs]
    own = {name: _parameters(output, f"output {name!r}") for name, output in zip(names, outputs, strict=True)}
    choices = {name: given["binary_data"] is True for name, given in own.items() if "binary_data" in given}
    classes = {
        name: classes_of(given.get("classification"), f"output {name!r}") for name, given in own.items()
    }
    identifier = request.get("id", "")
    if not isinstance(identifier, str) or not _is_text(identifier):
        raise InvalidInputError("'id' is a string, of whole characters")
    return Asked(
        Question(
            model,
            inputs,
            version,
            tuple(names),
            timeout_of(parameters.get("timeout")),
            priority_of(parameters.get("priority")),
            classes,
            caller,
        ),
        identifier,
        parameters.get("binary_data_output") is True,
        choices,
    )


def encode(answer: Answer, asked: Asked) -> tuple[bytes, int | None]:
    """Return an answer's body and, when binary tensors follow its JSON, the length of that JSON."""
    outputs, raws = [], []
    for name, tensor in answer.outputs.items():
        entry: dict[str, Any] = {"name": name, "datatype": tensor.datatype, "shape": list(tensor.array.shape)}
        if asked.binary_outputs.get(name, asked.binary):
            raws.append(to_raw(tensor.array))
            entry["parameters"] = {"binary_data_size": len(raws[-1])}
        else:
            entry["data"] = to_json(tensor.array)
        outputs.append(entry)
    response: dict[str, Any] = {
        "model_name": answer.model,
        "model_version": answer.version,
        "outputs": outputs,
    }
    if asked.id:
        response["id"] = asked.id
    head = _ENCODER.encode(response).encode()
    return (head, None) if not raws else (b"".join([head, *raws]), len(head))


def only_ready(body: bytes) -> bool:
    """Return whether a request for the index wants only models that can answer; an empty body does not.

    Raises:
        InvalidInputError: If the body is no such request.
    """
    ready = _object(body).get("ready", False) if body else False
    if not isinstance(ready, bool):
        raise InvalidInputError("'ready' is true or false")
    return ready


def metadata(info: ModelInfo, platform: str) -> dict[str, Any]:
    """Return a model's metadata as the protocol has it."""

    def tensors(specs: tuple[TensorInfo, ...]) -> list[dict[str, Any]]:
        return [{"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in specs]

    return {
        "name": info.name,
        "versions": list(info.versions),
        "platform": platform,
        "inputs": tensors(info.inputs),
        "outputs": tensors(info.outputs),
    }


def _split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    digits = header_length.isascii() and header_length.isdigit() and len(header_length) < 20
    length = int(header_length) if digits else -1
    if not 0 <= length <= len(body):
        raise InvalidInputError("Inference-Header-Content-Length is not a length within the body")
    return body[:length], memoryview(body)[length:]


def _object(head: bytes) -> dict[str, Any]:
    try:
        request = _DECODER.decode(head.decode(json.detect_encoding(head), "surrogatepass"))
    except RecursionError as error:
        raise InvalidInputError("the request is nested too deeply") from error
    except ValueError as error:
        raise InvalidInputError(f"the request is not JSON: {error}"[:200]) from error
    if not isinstance(request, dict):
        raise InvalidInputError("the request is not a JSON object")
    return request


def _is_text(value: str) -> bool:
    """Return whether a string can be sent back: JSON may hold half of a surrogate pair, UTF-8 may not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


# ``json.loads`` and ``json.dumps`` would make one for each request.
_DECODER = json.JSONDecoder(parse_constant=_no_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def _inputs(request: dict[str, Any], tail: memoryview) -> tuple[dict[str, Tensor], int]:
    inputs: dict[str, Tensor] = {}
    used = 0
    for entry in _list(request, "inputs"):
        name = _name(entry, "input")
        if name in inputs:
            raise InvalidInputError(f"input {name!r} is there twice")
        size = _parameters(entry, f"input {name!r}").get("binary_data_size")
        if size is None:
            if "data" not in entry:
                raise InvalidInputError(f"input {name!r} has neither 'data' nor 'binary_data_size'")
            inputs[name] = from_json(name, entry.get("datatype"), entry.get("shape"), entry["data"])
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(tail) - used:
            raise InvalidInputError(f"input {name!r}: 'binary_data_size' is not a length within the body")
        raw = tail[used : used + size]
        inputs[name] = from_raw(name, entry.get("datatype"), entry.get("shape"), raw)
        used += size
    return inputs, used


def _list(request: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = request.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidInputError(f"{key!r} is a list of objects")
    return entries


def _name(entry: dict[str, Any], kind: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str):
        raise InvalidInputError(f"every {kind} has a 'name', a string")
    return name


def _parameters(entry: dict[str, Any], of: str) -> dict[str, Any]:
    parameters = entry.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidInputError(f"'parameters' of {of[:100]} is an object")
    check_parameters(parameters, of)
    return parameters
