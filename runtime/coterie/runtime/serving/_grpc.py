"""The Open Inference Protocol v2 over gRPC, with gRPC's own health checks and reflection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coterie.runtime.serving import _grpc_codec as codec
from coterie.runtime.serving._core import EXTENSIONS, PLATFORM, Models, Question
from coterie.runtime.serving._failures import failure_of, message_of, retry_seconds
from coterie.runtime.serving._protocol import SERVICE, messages, methods, pool

Handler = Callable[[Any, Any], Awaitable[Any]]

_ROOM = 64 * 1024
"""Bytes that a message may have beside its tensors."""


class GrpcServer:
    """A gRPC server of one process; several processes may share its port.

    Args:
        models: The models; the server answers as soon as it is started.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        max_body: Largest request, in bytes; a larger one is refused with RESOURCE_EXHAUSTED.
    """

    def __init__(self, models: Models, *, host: str, port: int, max_body: int) -> None:
        self._servicer = _Servicer(models)
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._options = [
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", max_body + _ROOM),
            # What is sent is bounded by the rows that were asked for.
            ("grpc.max_send_message_length", -1),
        ]
        self._server: Any = None
        self._health = health.aio.HealthServicer()

    async def start(self) -> int:
        """Listen, and return the port.

        Raises:
            OSError: If the address cannot be listened on.
        """
        self._server = grpc.aio.server(options=self._options)
        self._server.add_generic_rpc_handlers((self._servicer.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server, pool=pool()
        )
        await self._health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        try:
            port: int = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise OSError(f"cannot listen for gRPC on {self._address}: is the port in use?") from error
        await self._server.start()
        return port

    async def stop(self, seconds: float) -> None:
        """Take no more requests, and wait at most so many seconds for those that were accepted."""
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(seconds)


class _Servicer:
    def __init__(self, models: Models) -> None:
        self._models = models
        self._version = version("coterie")

    def handler(self) -> Any:
        """Return the handler of every method of the service."""
        handlers: dict[str, Handler] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    _safe(handlers[name]),
                    request_deserializer=messages()[request].FromString,
                    response_serializer=messages()[response].SerializeToString,
                )
                for name, (request, response) in methods().items()
            },
        )

    async def _server_live(self, _: Any, _context: Any) -> Any:
        return messages()["ServerLiveResponse"](live=True)

    async def _server_ready(self, _: Any, _context: Any) -> Any:
        return messages()["ServerReadyResponse"](ready=self._models.ready)

    async def _model_ready(self, request: Any, _context: Any) -> Any:
        self._models.info(request.name, request.version)
        return messages()["ModelReadyResponse"](ready=self._models.ready)

    async def _server_metadata(self, _: Any, _context: Any) -> Any:
        return messages()["ServerMetadataResponse"](
            name="coterie", version=self._version, extensions=EXTENSIONS
        )

    async def _model_metadata(self, request: Any, _context: Any) -> Any:
        return codec.metadata(self._models.info(request.name, request.version), PLATFORM)

    async def _model_infer(self, request: Any, context: Any) -> Any:
        try:
            self._models.info(request.model_name, request.model_version)
            question = _in_time(codec.decode(request), context.time_remaining())
        except Exception as error:
            self._models.observe(request.model_name, "grpc", failure_of(error).outcome, 0, 0.0)
            raise
        return codec.encode(await self._models.answer(question, transport="grpc"), request)


def _in_time(question: Question, remaining: float | None) -> Question:
    """Return a question that nobody wants answered after its client's deadline either."""
    if remaining is None or (question.timeout is not None and question.timeout < remaining):
        return question
    return replace(question, timeout=max(0.0, remaining))


def _safe(handler: Handler) -> Callable[[Any, Any], Awaitable[Any]]:
    async def guarded(request: Any, context: Any) -> Any:
        try:
            return await handler(request, context)
        except Exception as error:
            status, message, seconds = failure_of(error).grpc, message_of(error), retry_seconds(error)
        if seconds is not None:
            context.set_trailing_metadata((("retry-after", str(seconds)),))
        return await context.abort(grpc.StatusCode[status], message)

    return guarded
