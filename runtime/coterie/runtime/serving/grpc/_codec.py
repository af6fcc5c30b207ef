"""Messages of the Open Inference Protocol v2 over gRPC to questions, and answers to messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from coterie.runtime.errors import InvalidInputError
from coterie.runtime.serving.access._callers import ANYBODY, Caller
from coterie.runtime.serving.grpc._protocol import messages
from coterie.runtime.serving.models._classification import classes_of
from coterie.runtime.serving.models._metadata import ModelInfo
from coterie.runtime.serving.models._questions import (
    Answer,
    Question,
    check_parameters,
    priority_of,
    timeout_of,
)
from coterie.runtime.serving.models._tensors import Tensor, from_raw, from_values, to_raw
from coterie.runtime.serving.models._turns import Urgency

_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def reader(name: str) -> Callable[[bytes], Any]:
    """Return what reads messages of a name; bytes that are none become ``None``, which ``checked`` refuses.

    An error at that place gRPC would tell the client as the server's own.
    """
    parse = messages()[name].FromString

    def read(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return None

    return read


def checked(request: Any) -> Any:
    """Return a message that was read.

    Raises:
        InvalidInputError: If it could not be.
    """
    if request is None:
        raise InvalidInputError(
            "these bytes are no message of the protocol: send them as its proto file says"
        )
    return request


def decode(request: Any, caller: Caller = ANYBODY) -> Question:
    """Return what a ``ModelInferRequest`` of somebody's asks.

    Raises:
        InvalidInputError: If its tensors are not as the protocol has them.
    """
    raws = request.raw_input_contents
    if raws and len(raws) != len(request.inputs):
        raise InvalidInputError(
            f"{len(raws)} raw_input_contents for {len(request.inputs)} inputs: give one for each"
        )
    inputs: dict[str, Tensor] = {}
    for index, entry in enumerate(request.inputs):
        name = entry.name
        if name in inputs:
            raise InvalidInputError(f"input {name!r} is there twice")
        check_parameters(entry.parameters, f"input {name!r}")
        shape = list(entry.shape)
        if not raws:
            inputs[name] = from_values(name, entry.datatype, shape, _values(entry))
            continue
        if entry.HasField("contents"):
            raise InvalidInputError(
                f"input {name!r} has contents beside raw_input_contents: give one of them"
            )
        inputs[name] = from_raw(name, entry.datatype, shape, raws[index])
    classes = {}
    for output in request.outputs:
        of = f"output {output.name!r}"
        check_parameters(output.parameters, of)
        classes[output.name] = classes_of(_parameter(output, "classification"), of)
    timeout = timeout_of(_parameter(request, "timeout"))
    priority = priority_of(_parameter(request, "priority"))
    return Question(
        request.model_name, inputs, request.model_version, tuple(classes), timeout, priority, classes, caller
    )


def urgency(request: Any) -> Urgency:
    """Return what a request says of itself; what cannot be meant so is refused when it is read."""
    priority, timeout = _parameter(request, "priority"), _parameter(request, "timeout")
    try:
        return Urgency(priority_of(priority), timeout_of(timeout))
    except InvalidInputError:
        return Urgency()


def encode(answer: Answer, request: Any) -> Any:
    """Return an answer as a ``ModelInferResponse``, raw when the request was raw."""
    response = messages()["ModelInferResponse"](
        model_name=answer.model, model_version=answer.version, id=request.id
    )
    for name, tensor in answer.outputs.items():
        output = response.outputs.add(name=name, datatype=tensor.datatype, shape=tensor.array.shape)
        if request.raw_input_contents:
            response.raw_output_contents.append(to_raw(tensor.array))
        else:
            values = getattr(output.contents, _CONTENTS[tensor.datatype])
            values.extend(tensor.array.reshape(-1).tolist())
    return response


def metadata(info: ModelInfo, platform: str) -> Any:
    """Return a model's metadata as a ``ModelMetadataResponse``."""
    response = messages()["ModelMetadataResponse"](name=info.name, versions=info.versions, platform=platform)
    for specs, tensors in ((info.inputs, response.inputs), (info.outputs, response.outputs)):
        for spec in specs:
            tensors.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
    return response


def streamed(response: Any, request: Any) -> Any:
    """Return a ``ModelInferResponse`` as one of a stream, marked as final for a client that asks for that."""
    if _parameter(request, "triton_enable_empty_final_response") is True:
        response.parameters["triton_final_response"].bool_param = True
    return messages()["ModelStreamInferResponse"](infer_response=response)


def streamed_error(text: str, request: Any) -> Any:
    """Return an error as one of a stream's answers, with the id of the question, if that could be read."""
    response = messages()["ModelStreamInferResponse"](error_message=text)
    if request is not None:
        response.infer_response.id = request.id
    return response


def message(name: str, values: dict[str, Any]) -> Any:
    """Return a message of fields by their names."""
    return json_format.ParseDict(values, messages()[name]())


def _values(entry: Any) -> list[Any]:
    wanted = _CONTENTS.get(entry.datatype)
    if wanted is None:
        raise InvalidInputError(
            f"input {entry.name!r}: {entry.datatype[:40]!r} has no typed contents; send raw_input_contents"
        )
    for field, _ in entry.contents.ListFields():
        if field.name != wanted:
            raise InvalidInputError(
                f"input {entry.name!r} is {entry.datatype} but has {field.name}, not {wanted}"
            )
    return list(getattr(entry.contents, wanted))


def _parameter(entry: Any, name: str) -> Any:
    if name not in entry.parameters:
        return None
    given = entry.parameters[name]
    return getattr(given, given.WhichOneof("parameter_choice") or "string_param")
