"""The addresses of a server that are asked now and then: metadata, health, metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from coterie.runtime.serving._failures import RefusedError, message_of, not_ready
from coterie.runtime.serving.http import _codec as codec
from coterie.runtime.serving.http._asgi import caller_of, error_headers
from coterie.runtime.serving.http._limits import BodyLimit
from coterie.runtime.serving.http._openapi import POLICY, described, page
from coterie.runtime.serving.http._receiving import Receiving
from coterie.runtime.serving.http._typed import TypedApi
from coterie.runtime.serving.models._metadata import EXTENSIONS, PLATFORM, ModelInfo
from coterie.runtime.serving.models._models import Models
from coterie.runtime.serving.models._repository import config, index, refuse_to_load
from coterie.runtime.serving.observing._exposition import CONTENT_TYPE

Handler = Callable[[Request], Awaitable[Response]]


def create_pages(
    models: Callable[[], Models | None],
    metrics: Callable[[], Awaitable[bytes]] | None,
    spec: Callable[[], Mapping[str, Any]] | None,
    *,
    keys: bool,
    max_body: int,
    receiving: Receiving,
) -> Starlette:
    """Return the application; who asks is in the scope, under ``CALLER``.

    Args:
        models: Gives the models once they are loaded; until then every question is refused with 503.
        metrics: Gives the metrics in Prometheus's words; without it there are none.
        spec: Gives BentoML's OpenAPI description; without it there is none.
        keys: Whether requests must bring a key.
        max_body: Largest body, in bytes.
        receiving: Counts the bodies that come.
    """
    pages = _Pages(models, metrics, spec, keys=keys)
    # A task's name may hold slashes, so the longer paths come first.
    model = "/v2/models/{model:path}"
    versioned = model + "/versions/{version}"
    own = {
        "/v2": pages.server,
        "/v2/": pages.server,
        "/v2/health/live": pages.live,
        "/v2/health/ready": pages.ready,
        "/v2/models/stats": pages.all_statistics,
        versioned + "/stats": pages.statistics,
        model + "/stats": pages.statistics,
        versioned + "/config": pages.config,
        model + "/config": pages.config,
        versioned + "/ready": pages.model_ready,
        model + "/ready": pages.model_ready,
        versioned: pages.model,
        model: pages.model,
        "/": pages.people,
        "/docs.json": pages.openapi,
        "/livez": pages.alive,
        "/healthz": pages.alive,
        "/readyz": pages.able,
        "/metrics": pages.metrics,
        "/tasks": pages.tasks,
        "/versions": pages.versions,
    }
    posted = {
        "/v2/repository/index": pages.index,
        "/v2/repository/models/{model:path}/load": pages.refused,
        "/v2/repository/models/{model:path}/unload": pages.refused,
    }
    return Starlette(
        routes=[
            *(Route(path, _safe(handler), methods=["POST"]) for path, handler in posted.items()),
            *(Route(path, _safe(handler)) for path, handler in own.items()),
            Route("/v2/{rest:path}", _safe(pages.nothing)),
        ],
        middleware=[Middleware(BodyLimit, limit=max_body, receiving=receiving)],
        exception_handlers={HTTPException: _refused},
    )


class _Pages:
    def __init__(
        self,
        models: Callable[[], Models | None],
        metrics: Callable[[], Awaitable[bytes]] | None,
        spec: Callable[[], Mapping[str, Any]] | None,
        *,
        keys: bool,
    ) -> None:
        self._find = models
        self._exposition = metrics
        self._spec = spec
        self._keys = keys
        self._version = version("coterie")

    def _models(self) -> Models:
        models = self._find()
        if models is None:
            raise not_ready()
        return models

    def _is_ready(self) -> bool:
        models = self._find()
        return models is not None and models.ready

    def _info(self, request: Request) -> ModelInfo:
        """Return the metadata of the model that a request is about."""
        params = request.path_params
        return self._models().info(params["model"], params.get("version", ""), caller_of(request.scope))

    async def server(self, _: Request) -> Response:
        return JSONResponse({"name": "coterie", "version": self._version, "extensions": list(EXTENSIONS)})

    async def live(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        ready = self._is_ready()
        return JSONResponse({"ready": ready}, status_code=200 if ready else 503)

    async def alive(self, _: Request) -> Response:
        return PlainTextResponse("\n")

    async def able(self, _: Request) -> Response:
        return PlainTextResponse("\n", status_code=200 if self._is_ready() else 503)

    async def metrics(self, request: Request) -> Response:
        if not caller_of(request.scope).metrics:
            raise RefusedError("this key may not read the metrics: make one with 'coterie key --metrics'")
        if self._exposition is None:
            return await self.nothing(request)
        return Response(await self._exposition(), headers={"content-type": CONTENT_TYPE})

    async def people(self, request: Request) -> Response:
        return (
            await self.nothing(request)
            if self._spec is None
            else HTMLResponse(page(), headers={"content-security-policy": POLICY})
        )

    async def openapi(self, request: Request) -> Response:
        if self._spec is None:
            return await self.nothing(request)
        # The page is for anybody, and what tasks there are for those who have a key.
        tasks = None if self._keys else TypedApi(self._models()).tasks()
        return JSONResponse(described(self._spec(), tasks, keys=self._keys))

    async def tasks(self, request: Request) -> Response:
        return JSONResponse(TypedApi(self._models()).tasks(caller_of(request.scope)).model_dump())

    async def versions(self, _: Request) -> Response:
        return JSONResponse(TypedApi(self._models()).versions().model_dump())

    async def model(self, request: Request) -> Response:
        return JSONResponse(codec.metadata(self._info(request), PLATFORM))

    async def config(self, request: Request) -> Response:
        return JSONResponse(config(self._info(request)))

    async def statistics(self, request: Request) -> Response:
        name, wanted = self._info(request).name, request.path_params.get("version", "")
        return JSONResponse({"model_stats": self._models().statistics(name, wanted)})

    async def all_statistics(self, request: Request) -> Response:
        models, caller = self._models(), caller_of(request.scope)
        if "stats" in models.names:  # a task of that name keeps its address
            return JSONResponse(codec.metadata(models.info("stats", caller=caller), PLATFORM))
        return JSONResponse({"model_stats": caller.seen(models.statistics())})

    async def index(self, request: Request) -> Response:
        entries = index(self._models(), ready=codec.only_ready(await request.body()))
        return JSONResponse(caller_of(request.scope).seen(entries))

    async def refused(self, _: Request) -> Response:
        refuse_to_load()

    async def model_ready(self, request: Request) -> Response:
        info, ready = self._info(request), self._is_ready()
        return JSONResponse({"name": info.name, "ready": ready}, status_code=200 if ready else 503)

    async def nothing(self, _: Request) -> Response:
        return JSONResponse({"error": "there is nothing at this address"}, status_code=404)


def error_response(error: Exception) -> Response:
    """Return the response to an error; it never holds a path or a stack trace."""
    status, headers = error_headers(error)
    return JSONResponse({"error": message_of(error)}, status_code=status, headers=dict(headers))


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
