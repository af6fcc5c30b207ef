"""The gRPC messages of ``inference.proto``, in a descriptor pool of their own.

The default pool holds each message name once for the whole process; a Triton client in the same process
brings the same names, so ours stay out of it. Names and numbers on the wire are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"
DESCRIPTORS = "inference.binpb"
"""Made from ``inference.proto`` by protoc; a test makes it again and compares."""


class Method(NamedTuple):
    """A method of the service: the names of its messages, and whether they come in streams."""

    request: str
    response: str
    streams: bool


@cache
def pool() -> Any:
    """Return the descriptor pool that holds the protocol and gRPC's own health and reflection."""
    from grpc_health.v1 import health_pb2
    from grpc_reflection.v1alpha import reflection_pb2

    own = descriptor_pool.DescriptorPool()
    data = files(__package__).joinpath(DESCRIPTORS).read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        own.Add(file)
    for module in (health_pb2, reflection_pb2):
        own.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return own


@cache
def messages() -> Mapping[str, Any]:
    """Return the message classes by their names, such as ``ModelInferRequest``."""
    service = pool().FindServiceByName(SERVICE)
    types = {
        kind.name: kind for method in service.methods for kind in (method.input_type, method.output_type)
    }
    return {name: message_factory.GetMessageClass(kind) for name, kind in types.items()}


def methods() -> Mapping[str, Method]:
    """Return the methods of the service by their names."""
    service = pool().FindServiceByName(SERVICE)
    return {
        method.name: Method(method.input_type.name, method.output_type.name, method.server_streaming)
        for method in service.methods
    }
