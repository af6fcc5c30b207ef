"""The BentoML service: typed JSON endpoints, the Open Inference Protocol at ``/v2``, and gRPC in each worker.

    COTERIE_BUNDLE=bundle/ COTERIE_GRPC_PORT=3001 bentoml serve coterie.runtime.service:CoterieService

This module is an entry point: importing it needs ``coterie[serve]`` and reads the ``COTERIE_`` environment
variables, which ``coterie.runtime.serving.Settings`` describes.
"""

# BentoML's decorators have no types.
# mypy: disable-error-code="untyped-decorator"
import os
from collections.abc import Awaitable
from typing import Annotated, Any, TypeVar

import bentoml
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from coterie.runtime.errors import ConfigError
from coterie.runtime.serving._grpc import GrpcServer
from coterie.runtime.serving._http import create_app, error_response
from coterie.runtime.serving._limits import BodyLimit, JsonOnly
from coterie.runtime.serving._metrics import Metrics, exposition
from coterie.runtime.serving._models import Models
from coterie.runtime.serving._open import check_served, open_models
from coterie.runtime.serving._settings import Settings
from coterie.runtime.serving._typed import InputAnswers, TaskAnswers, TaskList, TypedApi

SETTINGS = Settings.from_environment(os.environ)

Inputs = Annotated[
    list[Any],
    Field(
        description="One entry for each input: a text (or a list of words, where words are tagged), or "
        "numbers in the shape that /tasks gives.",
        examples=[["a fine book", "a dull film"], [[0.5, -1.25, 3.0, 0.0]]],
    ),
]

Answered = TypeVar("Answered", bound=BaseModel)

_serving: Models | None = None


def _models() -> Models | None:
    return _serving


async def _metrics(_: Request) -> Response:
    content, kind = exposition()
    return Response(content, headers={"content-type": kind})


async def _tasks(_: Request) -> Response:
    if _serving is None:
        return JSONResponse({"error": "the server is not ready yet"}, status_code=503)
    return JSONResponse(TypedApi(_serving).tasks().model_dump())


async def _versions(_: Request) -> Response:
    if _serving is None:
        return JSONResponse({"error": "the server is not ready yet"}, status_code=503)
    return JSONResponse(TypedApi(_serving).versions().model_dump())


# BentoML's own metrics make a series of every path that is asked for, known or not; ours take their place.
@bentoml.asgi_app(
    create_app(
        _models,
        max_body=SETTINGS.max_body,
        routes=[Route("/metrics", _metrics), Route("/tasks", _tasks), Route("/versions", _versions)],
    ),
    path="/",
    name="open-inference-protocol",
)
@bentoml.service(
    name="coterie",
    workers=SETTINGS.workers,
    metrics={"enabled": False},
    traffic={"timeout": 60},
)
class CoterieService:
    """Asks the tasks of one bundle: one task, or many about the same inputs."""

    def __init__(self) -> None:
        self._models, self._follower = open_models(SETTINGS, Metrics())
        self._typed = TypedApi(self._models)
        self._grpc: GrpcServer | None = None

    @bentoml.on_deployment
    def verify() -> None:
        """Refuse a missing or broken bundle before any worker is started."""
        if SETTINGS.bundle is None:
            raise ConfigError("the server has no bundle", ["COTERIE_BUNDLE: set it to a bundle's folder"])
        check_served(SETTINGS.bundle, SETTINGS.public_key)

    @bentoml.on_startup
    async def start(self) -> None:
        """Start the gRPC server of this worker, and be ready."""
        global _serving  # noqa: PLW0603 - the mounted application is made before its worker is
        self._models.ready = True
        if SETTINGS.grpc_port:
            self._grpc = GrpcServer(
                self._models, host=SETTINGS.grpc_host, port=SETTINGS.grpc_port, max_body=SETTINGS.max_body
            )
            await self._grpc.start()
        if self._follower is not None:
            self._follower.start()
        _serving = self._models

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Finish what was accepted, and take no more."""
        if self._grpc is not None:
            await self._grpc.stop(SETTINGS.shutdown_seconds)
        if self._follower is not None:
            await self._follower.stop()
        await self._models.close()

    async def __is_ready__(self) -> bool:
        """Tell BentoML's /readyz whether questions can be answered."""
        return self._models.ready

    @bentoml.api(route="/predict", output_spec=TaskAnswers)
    async def predict(
        self,
        task: Annotated[str, Field(description="A task's name; /tasks lists them.", examples=["sentiment"])],
        inputs: Inputs,
    ) -> TaskAnswers | Response:
        """Ask one task about each of the inputs."""
        return await _answered(self._typed.predict(task, inputs))

    @bentoml.api(route="/ask", output_spec=InputAnswers)
    async def ask(
        self,
        inputs: Inputs,
        tasks: Annotated[
            list[str] | None,
            Field(description="The tasks to ask; all, when left out.", examples=[["sentiment", "topic"]]),
        ] = None,
    ) -> InputAnswers | Response:
        """Ask many tasks about each of the inputs; what they share is computed once for each input."""
        return await _answered(self._typed.ask(inputs, tasks))

    @bentoml.api(route="/tasks", output_spec=TaskList)
    async def tasks(self) -> TaskList:
        """List the tasks, their labels and the shape of an input; a GET of the same path does too."""
        return self._typed.tasks()


CoterieService.add_asgi_middleware(JsonOnly)  # type: ignore[attr-defined]
CoterieService.add_asgi_middleware(BodyLimit, limit=SETTINGS.max_body)  # type: ignore[attr-defined]


async def _answered(work: Awaitable[Answered]) -> Answered | Response:
    """Return the answer, or the response to the error; BentoML would make a 500 of it."""
    try:
        return await work
    except Exception as error:
        return error_response(error)
