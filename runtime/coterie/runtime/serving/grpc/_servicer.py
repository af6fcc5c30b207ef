"""The methods of the Open Inference Protocol v2 over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status

from coterie.runtime.errors import UnavailableError, UnknownTaskError
from coterie.runtime.serving._failures import failure_of, message_of, retry_seconds
from coterie.runtime.serving.access._callers import ANYBODY, Access, Caller
from coterie.runtime.serving.grpc import _codec as codec
from coterie.runtime.serving.grpc._protocol import SERVICE, Method, messages, methods
from coterie.runtime.serving.grpc._stream import in_order
from coterie.runtime.serving.models._metadata import EXTENSIONS, PLATFORM, ModelInfo
from coterie.runtime.serving.models._models import Models
from coterie.runtime.serving.models._questions import Question
from coterie.runtime.serving.models._repository import config, index, refuse_to_load
from coterie.runtime.serving.observing._calls import REQUEST_ID, Calls

Handler = Callable[[Any, Any], Awaitable[Any]]


class Servicer:
    """Answers each method of the service; see ``GrpcServer``."""

    def __init__(self, models: Models, access: Access, stopping: asyncio.Event, calls: Calls) -> None:
        self._calls = calls
        self._access = access
        self._models = models
        self._stopping = stopping
        self.refused = 0
        """Questions that came when the server was stopping."""
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
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._repository_refused,
            "RepositoryModelUnload": self._repository_refused,
        }

        def handler_of(name: str, method: Method) -> Any:
            codecs = {
                "request_deserializer": codec.reader(method.request),
                "response_serializer": messages()[method.response].SerializeToString,
            }
            if method.streams:
                return grpc.stream_stream_rpc_method_handler(self._model_stream_infer, **codecs)
            return grpc.unary_unary_rpc_method_handler(_safe(handlers[name]), **codecs)

        return grpc.method_handlers_generic_handler(
            SERVICE, {name: handler_of(name, method) for name, method in methods().items()}
        )

    async def _server_live(self, _: Any, _context: Any) -> Any:
        return messages()["ServerLiveResponse"](live=True)

    async def _server_ready(self, _: Any, _context: Any) -> Any:
        return messages()["ServerReadyResponse"](ready=self._models.ready)

    def _caller(self, context: Any) -> Caller:
        if self._access.is_open:
            return ANYBODY
        metadata = dict(context.invocation_metadata() or ())
        return self._access.caller(str(metadata.get("authorization", "")), str(metadata.get("x-api-key", "")))

    def _info(self, request: Any, context: Any) -> ModelInfo:
        return self._models.info(request.name, request.version, self._caller(context))

    async def _model_ready(self, request: Any, context: Any) -> Any:
        try:
            self._info(request, context)
        except UnknownTaskError:  # as Triton has it: whoever waits for a model asks until it is there
            return messages()["ModelReadyResponse"](ready=False)
        return messages()["ModelReadyResponse"](ready=self._models.ready)

    async def _server_metadata(self, _: Any, context: Any) -> Any:
        self._caller(context)
        return messages()["ServerMetadataResponse"](
            name="coterie", version=self._version, extensions=EXTENSIONS
        )

    async def _model_metadata(self, request: Any, context: Any) -> Any:
        return codec.metadata(self._info(request, context), PLATFORM)

    async def _model_config(self, request: Any, context: Any) -> Any:
        described = {"config": config(self._info(request, context))}
        return codec.message("ModelConfigResponse", described)

    async def _model_statistics(self, request: Any, context: Any) -> Any:
        caller = self._caller(context)
        if request.name:
            self._models.info(request.name, request.version, caller)
        statistics = caller.seen(self._models.statistics(request.name, request.version))
        return codec.message("ModelStatisticsResponse", {"model_stats": statistics})

    async def _repository_index(self, request: Any, context: Any) -> Any:
        models = self._caller(context).seen(index(self._models, ready=request.ready))
        return codec.message("RepositoryIndexResponse", {"models": models})

    async def _repository_refused(self, _: Any, context: Any) -> Any:
        self._caller(context)
        refuse_to_load()

    async def _model_stream_infer(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        failing = _wants_status(context)

        async def answer(request: Any) -> Any:
            try:
                return codec.streamed(
                    await self._model_infer(codec.checked(request), context, alone=False), request
                )
            except Exception as error:
                if failing:
                    raise
                return codec.streamed_error(message_of(error), request)

        try:
            async for each in in_order(requests, answer, self._stopping):
                yield each
        except Exception as error:
            await _abort(context, error)

    async def _model_infer(self, request: Any, context: Any, *, alone: bool = True) -> Any:
        """Answer a question; one that is ``alone`` in its call has its id in the call's metadata too."""
        with self._calls.call("grpc", "ModelInfer", context.invocation_metadata() or ()) as call:
            call.status = "CANCELLED"  # unless it comes to an end
            call.suggest(request.id)
            if alone:
                context.set_trailing_metadata(((REQUEST_ID, call.id),))
            try:
                answer = await self._answer(request, context, alone=alone)
            except Exception as error:
                call.status = failure_of(error).grpc
                raise
            call.status = "OK"
            return answer

    async def _answer(self, request: Any, context: Any, *, alone: bool) -> Any:
        models, name = self._models, request.model_name
        with models.counting_refusals(name, "grpc"):
            if alone and self._stopping.is_set():  # a stream's questions are taken, once they are read
                self.refused += 1
                raise UnavailableError("the server is shutting down: ask another one")
            caller = self._caller(context)
            models.find(request.model_version).info(name, caller)
            nbytes, remaining = request.ByteSize(), context.time_remaining()
            models.check_room(name, request.model_version, nbytes)
        async with models.turns.of(name, nbytes, lambda: codec.urgency(request)) as since:
            with models.counting_refusals(name, "grpc"):
                question = _in_time(codec.decode(request, caller).waited(since), remaining)
            return codec.encode(await models.answer(question, transport="grpc"), request)


def _in_time(question: Question, remaining: float | None) -> Question:
    """Return a question that nobody wants answered after its client's deadline either."""
    if remaining is None or (question.timeout is not None and question.timeout < remaining):
        return question
    return replace(question, timeout=max(0.0, remaining))


def _wants_status(context: Any) -> bool:
    """Return whether a stream's client wants its first error to end the stream, in Triton's words."""
    return dict(context.invocation_metadata() or ()).get("triton_grpc_error") == "true"


def _safe(handler: Handler) -> Callable[[Any, Any], Awaitable[Any]]:
    async def guarded(request: Any, context: Any) -> Any:
        try:
            return await handler(codec.checked(request), context)
        except Exception as error:
            return await _abort(context, error)

    return guarded


async def _abort(context: Any, error: Exception) -> Any:
    """End a call with an error; one that may be gone soon says when to try again."""
    code, message, seconds = grpc.StatusCode[failure_of(error).grpc], message_of(error), retry_seconds(error)
    if seconds is not None:
        details = status_pb2.Status(code=code.value[0], message=message)
        details.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=seconds)))
        status = rpc_status.to_status(details)
        known = context.trailing_metadata() or ()
        more = (*status.trailing_metadata, ("retry-after", str(seconds)))
        context.set_trailing_metadata((*known, *more))
    return await context.abort(code, message)
