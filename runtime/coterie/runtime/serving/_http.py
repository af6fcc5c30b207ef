"""The Open Inference Protocol v2 over HTTP, as an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from importlib.metadata import version
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from coterie.runtime.errors import UnavailableError
from coterie.runtime.serving import _http_codec as codec
from coterie.runtime.serving._core import EXTENSIONS, PLATFORM
from coterie.runtime.serving._failures import GoneError, failure_of, message_of, retry_seconds
from coterie.runtime.serving._limits import BodyLimit
from coterie.runtime.serving._models import Models
from coterie.runtime.serving._repository import config, index, refuse_to_load

_HEADER = "Inference-Header-Content-Length"
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
"""All of them, or a GET of ``.../infer`` would be taken for the metadata of a model of that name."""

Handler = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")


def create_app(
    models: Callable[[], Models | None], *, max_body: int, routes: Sequence[BaseRoute] = ()
) -> Starlette:
    """Return the application.

    Args:
        models: Gives the models once they are loaded; until then every question is refused with 503.
        max_body: Largest body, in bytes, packed or unpacked.
        routes: More routes of the same application.
    """
    front = _Front(models, max_body)
    # A task's name may hold slashes, so the longer paths come first.
    model = "/v2/models/{model:path}"
    versioned = model + "/versions/{version}"
    own = [
        Route("/v2", _safe(front.server)),
        Route("/v2/", _safe(front.server)),
        Route("/v2/health/live", _safe(front.live)),
        Route("/v2/health/ready", _safe(front.ready)),
        Route(versioned + "/infer", _safe(front.infer), methods=_METHODS),
        Route(model + "/infer", _safe(front.infer), methods=_METHODS),
        Route("/v2/models/stats", _safe(front.all_statistics)),
        Route("/v2/repository/index", _safe(front.index), methods=["POST"]),
        Route("/v2/repository/models/{model:path}/load", _safe(front.refused), methods=["POST"]),
        Route("/v2/repository/models/{model:path}/unload", _safe(front.refused), methods=["POST"]),
        Route(versioned + "/stats", _safe(front.statistics)),
        Route(model + "/stats", _safe(front.statistics)),
        Route(versioned + "/config", _safe(front.config)),
        Route(model + "/config", _safe(front.config)),
        Route(versioned + "/ready", _safe(front.model_ready)),
        Route(model + "/ready", _safe(front.model_ready)),
        Route(versioned, _safe(front.model)),
        Route(model, _safe(front.model)),
        Route("/v2/{rest:path}", _safe(front.nothing)),
    ]
    return Starlette(
        routes=[*own, *routes],
        middleware=[Middleware(BodyLimit, limit=max_body)],
        exception_handlers={HTTPException: _refused},
    )


class _Front:
    def __init__(self, models: Callable[[], Models | None], max_body: int) -> None:
        self._find = models
        self._max_body = max_body
        self._version = version("coterie")

    def _models(self) -> Models:
        models = self._find()
        if models is None:
            raise UnavailableError("the server is not ready yet: try again in a second")
        return models

    async def server(self, _: Request) -> Response:
        return JSONResponse({"name": "coterie", "version": self._version, "extensions": list(EXTENSIONS)})

    async def live(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        models = self._find()
        ready = models is not None and models.ready
        return JSONResponse({"ready": ready}, status_code=200 if ready else 503)

    async def model(self, request: Request) -> Response:
        info = self._models().info(request.path_params["model"], request.path_params.get("version", ""))
        return JSONResponse(codec.metadata(info, PLATFORM))

    async def config(self, request: Request) -> Response:
        info = self._models().info(request.path_params["model"], request.path_params.get("version", ""))
        return JSONResponse(config(info))

    async def statistics(self, request: Request) -> Response:
        name, wanted = request.path_params["model"], request.path_params.get("version", "")
        return JSONResponse({"model_stats": self._models().statistics(name, wanted)})

    async def all_statistics(self, _: Request) -> Response:
        models = self._models()
        if "stats" in models.names:  # a task of that name keeps its address
            return JSONResponse(codec.metadata(models.info("stats"), PLATFORM))
        return JSONResponse({"model_stats": models.statistics()})

    async def index(self, request: Request) -> Response:
        return JSONResponse(index(self._models(), ready=codec.only_ready(await request.body())))

    async def refused(self, _: Request) -> Response:
        refuse_to_load()

    async def model_ready(self, request: Request) -> Response:
        models = self._models()
        info = models.info(request.path_params["model"], request.path_params.get("version", ""))
        return JSONResponse(
            {"name": info.name, "ready": models.ready}, status_code=200 if models.ready else 503
        )

    async def infer(self, request: Request) -> Response:
        if request.method != "POST":
            raise HTTPException(405, "a question is a POST", headers={"Allow": "POST"})
        models = self._models()
        name, wanted = request.path_params["model"], request.path_params.get("version", "")
        body = await request.body()
        try:
            models.info(name, wanted)  # an unknown model is 404, whatever the body
            body = codec.decompress(body, request.headers.get("content-encoding", ""), self._max_body)
            asked = codec.decode(name, wanted, body, request.headers.get(_HEADER))
        except Exception as error:
            models.observe(name, "http", failure_of(error).outcome, 0, 0.0)
            raise
        answer = await while_connected(request, models.answer(asked.question, transport="http"))
        content, length = codec.encode(answer, asked)
        if length is None:
            return Response(content, media_type="application/json")
        return Response(content, media_type="application/octet-stream", headers={_HEADER: str(length)})

    async def nothing(self, _: Request) -> Response:
        return JSONResponse({"error": "the protocol has nothing at this address"}, status_code=404)


def error_response(error: Exception) -> Response:
    """Return the response to an error; it never holds a path or a stack trace."""
    status, seconds = failure_of(error).http, retry_seconds(error)
    headers = None if seconds is None else {"Retry-After": str(seconds)}
    return JSONResponse({"error": message_of(error)}, status_code=status, headers=headers)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await what is done for a client; give it up when the client is gone.

    Raises:
        GoneError: If it is gone.
    """
    doing = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((doing, gone), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise GoneError("the client went away before its answer was there")
        return await doing
    finally:
        doing.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _safe(handler: Handler) -> Handler:
    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except HTTPException:
            raise
        except Exception as error:
            return error_response(error)

    return guarded


async def _refused(_: Request, error: Any) -> Response:
    return JSONResponse({"error": str(error.detail)}, status_code=error.status_code, headers=error.headers)
