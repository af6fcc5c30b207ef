"""The BentoML service: typed JSON endpoints, the Open Inference Protocol at ``/v2``, and gRPC in each worker.

    COTERIE_BUNDLE=bundle/ COTERIE_GRPC_PORT=3001 bentoml serve coterie.runtime.service:CoterieService

This module is an entry point: importing it needs ``coterie[serve]`` and reads the ``COTERIE_`` environment
variables, which ``coterie.runtime.serving.Settings`` describes.
"""

# BentoML's decorators have no types.
# mypy: disable-error-code="untyped-decorator"
import os
import sys
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import bentoml
from bentoml import Service
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from coterie.runtime._process import own_process
from coterie.runtime.errors import ConfigError
from coterie.runtime.serving._failures import not_ready
from coterie.runtime.serving._lifeline import end_with_parent
from coterie.runtime.serving._mending import mend_at_once
from coterie.runtime.serving._open import check_device, check_served, open_models
from coterie.runtime.serving._ports import obstacle
from coterie.runtime.serving._reports import Reports
from coterie.runtime.serving._settings import Settings
from coterie.runtime.serving.access._callers import Access, Caller
from coterie.runtime.serving.access._renewal import Renewal, over_http
from coterie.runtime.serving.grpc._server import GrpcServer
from coterie.runtime.serving.http._asgi import caller_of, while_connected
from coterie.runtime.serving.http._calls import CallMiddleware
from coterie.runtime.serving.http._front import Front
from coterie.runtime.serving.http._limits import RECEIVED, BodyLimit, JsonOnly
from coterie.runtime.serving.http._pages import error_response
from coterie.runtime.serving.http._receiving import Receiving
from coterie.runtime.serving.http._typed import InputAnswers, TaskAnswers, TaskList, TypedApi
from coterie.runtime.serving.http._worded import JsonErrors
from coterie.runtime.serving.models._models import Models
from coterie.runtime.serving.observing._board import Board
from coterie.runtime.serving.observing._calls import Calls
from coterie.runtime.serving.observing._logs import AccessLog, leave_out_clients_mistakes, log_as_json
from coterie.runtime.serving.observing._metrics import Metrics
from coterie.runtime.serving.observing._telemetry import tracing_from

SETTINGS = Settings.from_environment(os.environ)
ACCESS = Access(SETTINGS.keys)

Inputs = Annotated[
    list[Any],
    Field(
        description="One entry for each input: a text (or a list of words, where words are tagged), or "
        "numbers in the shape that /tasks gives; of a model with several inputs an object of these by name.",
        examples=[["a fine book", "a dull film"], [[0.5, -1.25, 3.0, 0.0]]],
    ),
]

VersionName = Annotated[
    str,
    Field(
        description="The version to ask; left out, the one that is served. /versions lists them.",
        examples=[""],
    ),
]

Answered = TypeVar("Answered", bound=BaseModel)

HTTP_HOST = "0.0.0.0" if "BENTOML_CONTAINERIZED" in os.environ else "127.0.0.1"  # noqa: S104 - a container's own
"""Where ``bentoml serve`` listens for HTTP unless it is told; BentoML's own default is all addresses."""

_serving: Models | None = None
_reports: Reports | None = None
_calls = Calls()
_receiving = Receiving(SETTINGS.max_waiting_bytes)


def _models() -> Models | None:
    return _serving


async def _exposition() -> bytes:
    if _reports is None:
        raise not_ready()
    return await _reports.exposition()


class _Fronted(Service[Any]):  # type: ignore[misc]
    """A BentoML service behind the front: what is asked of models never meets BentoML's middleware."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return the application of a worker."""
        front = Front(
            _models,
            max_body=SETTINGS.max_body,
            receiving=_receiving,
            access=ACCESS,
            metrics=_exposition,
            spec=self.openapi_spec.asdict,
            beneath=JsonErrors(super().to_asgi(is_main)),
        )
        return CallMiddleware(front, _calls)


# BentoML's own metrics make a series of every path that is asked for, known or not; ours take their place.
@bentoml.service(
    service_class=_Fronted,
    name="coterie",
    workers=SETTINGS.workers,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    traffic={"timeout": 60},
    http={"host": HTTP_HOST},
)
class CoterieService:
    """Asks the tasks of one bundle: one task, or many about the same inputs."""

    def __init__(self) -> None:
        metrics = Metrics(tasks=SETTINGS.metrics_tasks, histograms=SETTINGS.metrics_histograms)
        own_process()
        self._models, self._follower = open_models(SETTINGS, metrics)
        self._reports = Reports(self._models, metrics, Board.from_environment(os.environ))
        self._tracing = tracing_from(os.environ)
        self._typed = TypedApi(self._models)
        self._grpc: GrpcServer | None = None
        self._renewal: Renewal | None = None

    @bentoml.on_deployment
    def verify() -> None:
        """Refuse a missing or broken bundle before any worker is started; let dead workers be replaced."""
        if SETTINGS.bundle is None:
            raise ConfigError("the server has no bundle", ["COTERIE_BUNDLE: set it to a bundle's folder"])
        check_device(SETTINGS)
        check_served(SETTINGS.bundle, SETTINGS.public_key)
        found = obstacle(SETTINGS.grpc_host, SETTINGS.grpc_port) if SETTINGS.grpc_port else None
        if found is not None:
            raise ConfigError("the server cannot listen", [f"COTERIE_GRPC_PORT: {found}"])
        # BentoML asks this variable for one thing, a moment from now: in a container, where it is set, a
        # worker that died would not be started again, and the container go on with fewer of them, or none.
        os.environ.pop("BENTOML_CONTAINERIZED", None)
        mend_at_once()
        end_with_parent()

    @bentoml.on_startup
    async def start(self) -> None:
        """Start the gRPC server of this worker, and be ready."""
        global _serving, _reports
        end_with_parent()
        leave_out_clients_mistakes()
        if SETTINGS.log_format == "json":
            log_as_json()
        if self._tracing is not None:
            _calls.tell(self._tracing)  # before the log, whose lines have the trace's id
        if SETTINGS.access_log:
            as_json = SETTINGS.log_format == "json"
            _calls.tell(AccessLog(sys.stdout, share=SETTINGS.access_log, as_json=as_json))
        self._models.ready = True
        if SETTINGS.grpc_port:
            self._grpc = GrpcServer(
                self._models,
                host=SETTINGS.grpc_host,
                port=SETTINGS.grpc_port,
                max_body=SETTINGS.max_body,
                access=ACCESS,
                tls=SETTINGS.tls,
                calls=_calls,
            )
            await self._grpc.start()
        shown = over_http()
        if self._grpc is not None and SETTINGS.tls is not None:
            shown.append((SETTINGS.tls, self._grpc.show))
        self._renewal = Renewal(shown, seconds=SETTINGS.poll_seconds)
        self._renewal.start()
        if self._follower is not None:
            self._follower.start()
        self._reports.start()
        _serving, _reports = self._models, self._reports

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Finish what was accepted, and take no more."""
        if self._grpc is not None:
            await self._grpc.stop(SETTINGS.shutdown_seconds)
        if self._renewal is not None:
            await self._renewal.stop()
        if self._follower is not None:
            await self._follower.stop()
        await self._models.close()
        await self._reports.stop()
        if self._tracing is not None:
            self._tracing.close()

    async def __is_ready__(self) -> bool:
        """Tell BentoML's /readyz whether questions can be answered."""
        return self._models.ready

    @bentoml.api(route="/predict", output_spec=TaskAnswers)
    async def predict(
        self,
        task: Annotated[str, Field(description="A task's name; /tasks lists them.", examples=["sentiment"])],
        inputs: Inputs,
        version: VersionName = "",
    ) -> TaskAnswers | Response:
        """Ask one task about each of the inputs."""
        return await _answered(self._typed.predict(task, inputs, version=version, **_sent()))

    @bentoml.api(route="/ask", output_spec=InputAnswers)
    async def ask(
        self,
        inputs: Inputs,
        tasks: Annotated[
            list[str] | None,
            Field(
                description="The tasks to ask; left out, all that you may.", examples=[["sentiment", "topic"]]
            ),
        ] = None,
        version: VersionName = "",
    ) -> InputAnswers | Response:
        """Ask many tasks about each of the inputs; what they share is computed once for each input."""
        return await _answered(self._typed.ask(inputs, tasks, version=version, **_sent()))

    @bentoml.api(route="/tasks", output_spec=TaskList)
    async def tasks(self) -> TaskList:
        """List the tasks, their labels and the shape of an input; a GET of the same path does too."""
        return self._typed.tasks(_caller())


CoterieService.add_asgi_middleware(JsonOnly)  # type: ignore[attr-defined]
CoterieService.add_asgi_middleware(  # type: ignore[attr-defined]
    BodyLimit, limit=SETTINGS.max_body, receiving=_receiving
)


def _request() -> Request:
    # Asked for as a parameter it would come with a response whose status takes the place of our own.
    request: Request = CoterieService.context.request  # type: ignore[attr-defined]
    return request


def _caller() -> Caller:
    return caller_of(_request().scope)


def _sent() -> dict[str, Any]:
    """Return who asks, and how many bytes were sent for that."""
    return {"caller": _caller(), "nbytes": _request().scope[RECEIVED].nbytes}


async def _answered(work: Coroutine[Any, Any, Answered]) -> Answered | Response:
    """Return the answer, or the response to the error; BentoML would make a 500 of it."""
    try:
        return await while_connected(_request().receive, work)
    except Exception as error:
        return error_response(error)
