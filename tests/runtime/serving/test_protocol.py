from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from google.protobuf import descriptor_pb2
from tritonclient.grpc import service_pb2

from coterie.runtime.serving import _protocol as protocol


def test_the_committed_descriptors_are_those_of_the_proto_file(tmp_path: Path) -> None:
    folder = files("coterie.runtime.serving")
    made = tmp_path / "made.binpb"
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}"),
            *(f"--descriptor_set_out={made}", "inference.proto"),
        ],
        check=True,
    )
    committed = folder.joinpath(protocol.DESCRIPTORS).read_bytes()
    parse = descriptor_pb2.FileDescriptorSet.FromString
    assert parse(committed) == parse(made.read_bytes())


def test_every_field_is_on_the_wire_as_triton_has_it() -> None:
    theirs = service_pb2.DESCRIPTOR
    for message in protocol.messages().values():
        descriptor = message.DESCRIPTOR
        _same_fields(descriptor, theirs.message_types_by_name[descriptor.name])
    for name in ("InferParameter", "InferTensorContents"):
        descriptor = protocol.pool().FindMessageTypeByName(f"inference.{name}")
        _same_fields(descriptor, theirs.message_types_by_name[name])


def _same_fields(ours: object, theirs: object) -> None:
    numbers = {field.name: (field.number, field.type) for field in theirs.fields}  # type: ignore[attr-defined]
    for field in ours.fields:  # type: ignore[attr-defined]
        assert numbers[field.name] == (field.number, field.type), field.full_name
    for nested in ours.nested_types:  # type: ignore[attr-defined]
        _same_fields(nested, theirs.nested_types_by_name[nested.name])  # type: ignore[attr-defined]


def test_our_messages_live_beside_tritons_in_one_process() -> None:
    code = (
        "from coterie.runtime.serving._protocol import messages\n"
        "request = messages()['ModelInferRequest'](model_name='topic')\n"
        "from tritonclient.grpc import service_pb2\n"
        "print(service_pb2.ModelInferRequest.FromString(request.SerializeToString()).model_name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "topic"
