from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

from coterie.runtime.serving.grpc import _protocol as protocol


def test_the_committed_descriptors_are_those_of_the_proto_file(tmp_path: Path) -> None:
    folder = files("coterie.runtime.serving.grpc")
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
    theirs = {
        **model_config_pb2.DESCRIPTOR.message_types_by_name,
        **service_pb2.DESCRIPTOR.message_types_by_name,
    }
    ours = protocol.pool().FindFileByName("inference.proto")
    assert len(ours.message_types_by_name) > 30
    for name, descriptor in ours.message_types_by_name.items():
        _same_fields(descriptor, theirs[name])
    types = {value.name: value.number for value in model_config_pb2.DataType.DESCRIPTOR.values}
    assert {value.name: value.number for value in ours.enum_types_by_name["DataType"].values} == types


def test_every_method_is_called_as_triton_has_it() -> None:
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for name, method in protocol.methods().items():
        assert method.request == theirs[name].input_type.name
        assert method.response == theirs[name].output_type.name
        assert method.streams == theirs[name].server_streaming == theirs[name].client_streaming


def _same_fields(ours: object, theirs: object) -> None:
    numbers = {field.name: (field.number, field.type) for field in theirs.fields}  # type: ignore[attr-defined]
    for field in ours.fields:  # type: ignore[attr-defined]
        assert numbers[field.name] == (field.number, field.type), field.full_name
    for nested in ours.nested_types:  # type: ignore[attr-defined]
        _same_fields(nested, theirs.nested_types_by_name[nested.name])  # type: ignore[attr-defined]


def test_our_messages_live_beside_tritons_in_one_process() -> None:
    code = (
        "from coterie.runtime.serving.grpc._protocol import messages\n"
        "request = messages()['ModelInferRequest'](model_name='topic')\n"
        "from tritonclient.grpc import service_pb2\n"
        "print(service_pb2.ModelInferRequest.FromString(request.SerializeToString()).model_name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "topic"
