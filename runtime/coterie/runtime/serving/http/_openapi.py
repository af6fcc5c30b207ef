"""The page that describes the typed endpoints, with examples that the served bundle answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from coterie.runtime.serving.http._typed import InputDescription, TaskList, VersionList

POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'none'"
"""The page's Content-Security-Policy: a browser loads nothing for it, and sends nothing, elsewhere."""

_ABOUT = (
    "Asks the tasks of one bundle. Open an operation and press *Execute*: its example is a question to this "
    "server.\n\nThese addresses are for people. Clients of the Open Inference Protocol find it at `/v2`, and "
    "over gRPC."
)
_ABOUT_KEYS = (
    "\n\nThis server takes questions with a key only: give yours under *Authorize*. Which tasks it may ask "
    "is at `/tasks`; put one of them in place of the example's."
)
_ASK, _WATCH = "Ask", "Watch"
_TAGS = [
    {"name": _ASK, "description": "the tasks, and about them"},
    {"name": _WATCH, "description": "the server itself"},
]
_FAILURES = {
    "400": "The question is wrong.",
    "404": "There is no such task, or that version is not loaded.",
    "413": "The request is larger than this server takes.",
    "415": "The body is not JSON.",
    "429": "As much waits as may wait: try again after the seconds of `Retry-After`.",
    "503": "The server is starting or stopping.",
    "504": "The answer took too long.",
}
_FAILURES_OF_KEYS = {"401": "The key is missing, or unknown.", "403": "The key may not ask this."}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string", "description": "What is wrong, and what to do about it."}},
}
_TEXTS = ("a good book", "a dull film")
_MOST_NUMBERS = 4096
"""An example of more would be no help to read."""


@cache
def page() -> str:
    """Return the page for people, in HTML; it reads the description from beside it."""
    # BentoML's own page tells a third party of every visit.
    return files(__package__).joinpath("page.html").read_text(encoding="utf-8")


def described(spec: Mapping[str, Any], tasks: TaskList | None, *, keys: bool) -> dict[str, Any]:
    """Return an OpenAPI description as it holds for one server.

    Args:
        spec: BentoML's, of which the typed endpoints' requests and answers are taken.
        tasks: What is served; ``None`` where it is not to be told.
        keys: Whether requests must bring a key.
    """
    known = spec["paths"]
    examples = {} if tasks is None else _examples(tasks)
    failures = _FAILURES | (_FAILURES_OF_KEYS if keys else {})
    listed = known["/tasks"]["post"]["responses"][200]
    told: dict[str, Any] = {
        "openapi": spec["openapi"],
        "info": {
            "title": "coterie",
            "version": version("coterie"),
            "description": _ABOUT + (_ABOUT_KEYS if keys else ""),
        },
        "servers": spec["servers"],
        "tags": _TAGS,
        "paths": {
            "/predict": _asked(known, "/predict", "One task about each input", failures, examples),
            "/ask": _asked(known, "/ask", "Many tasks about each input", failures, examples),
            "/tasks": {
                "get": _got(_ASK, "The tasks, their labels, and the shape of an input", listed, failures),
                **_asked(known, "/tasks", "The same, for clients that only POST", failures, examples),
            },
            "/versions": {
                "get": _got(_ASK, "The versions that can be asked", _json(VersionList), failures),
            },
            "/livez": {"get": _open("The process is alive", {})},
            "/readyz": {
                "get": _open("Questions are answered", {"503": {"description": _FAILURES["503"]}}),
            },
            "/metrics": {"get": _got(_WATCH, "Metrics, for Prometheus", _text(), failures)},
        },
        "components": {"schemas": dict(spec["components"]["schemas"])},
    }
    if keys:
        told["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        told["security"] = [{"key": []}]
    return told


def _asked(
    known: Mapping[str, Any],
    path: str,
    summary: str,
    failures: Mapping[str, str],
    examples: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """Return BentoML's description of a path as it really answers."""
    post = known[path]["post"]
    body = post["requestBody"]
    if path in examples:
        content = {**body["content"]["application/json"], "example": examples[path]}
        body = {**body, "content": {"application/json": content}}
    responses = {"200": post["responses"][200], **_failed(failures)}
    own = {"tags": [_ASK], "summary": summary, "requestBody": body, "responses": responses}
    return {"post": {**post, **own}}


def _got(tag: str, summary: str, answer: Any, failures: Mapping[str, str]) -> dict[str, Any]:
    """Return what is asked with a GET, which is never wrong in itself."""
    possible = {status: text for status, text in failures.items() if status in ("401", "403", "503")}
    return {"tags": [tag], "summary": summary, "responses": {"200": answer, **_failed(possible)}}


def _open(summary: str, failures: Mapping[str, Any]) -> dict[str, Any]:
    """Return a check of health, which takes no key."""
    responses = {"200": {"description": "It is so."}, **failures}
    return {"tags": [_WATCH], "summary": summary, "security": [], "responses": responses}


def _failed(failures: Mapping[str, str]) -> dict[str, Any]:
    # As one answer: a box for each would be longer to scroll past than all the rest of an operation.
    lines = "\n".join(f"- {status}: {text}" for status, text in sorted(failures.items()))
    content = {"application/json": {"schema": _ERROR}}
    return {"default": {"description": lines, "content": content}}


def _json(model: type[VersionList]) -> dict[str, Any]:
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"description": "Successful Response", "content": content}


def _text() -> dict[str, Any]:
    return {"description": "Successful Response", "content": {"text/plain": {"schema": {"type": "string"}}}}


def _examples(tasks: TaskList) -> dict[str, dict[str, Any]]:
    """Return a question for each path that takes one; none where it would be too long."""
    inputs = _inputs(tasks.inputs)
    if not tasks.tasks or inputs is None:
        return {}
    names = [task.name for task in tasks.tasks]
    return {
        "/predict": {"task": names[0], "inputs": inputs},
        "/ask": {"tasks": names[:3], "inputs": inputs},
        "/tasks": {},
    }


def _inputs(inputs: list[InputDescription]) -> list[Any] | None:
    """Return some inputs that are in order; ``None`` where they would be too long."""
    if any(math.prod(map(abs, each.shape)) > _MOST_NUMBERS for each in inputs):
        return None
    if len(inputs) == 1:
        return list(_TEXTS) if inputs[0].text else [_zeros(inputs[0].shape)]
    return [{each.name: _TEXTS[0] if each.text else _zeros(each.shape) for each in inputs}]


def _zeros(shape: list[int]) -> Any:
    """Return zeros of a shape, in which -1 may be 1."""
    return [_zeros(shape[1:]) for _ in range(abs(shape[0]))] if shape else 0
