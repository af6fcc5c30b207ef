"""The page that describes the typed endpoints, with examples that the served bundle answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from coterie.runtime.serving.http._typed import InputDescription, TaskList

# BentoML's own page tells a third party of every visit.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><title>coterie</title>
<link rel="stylesheet" href="./static_content/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="./static_content/swagger-ui-bundle.js"></script>
<script src="./static_content/swagger-ui-standalone-preset.js"></script>
<script src="./static_content/swagger-initializer.js"></script>
</body>
</html>
"""
_ABOUT = (
    "Asks the tasks of one bundle. The Open Inference Protocol is at /v2, for its clients; "
    "these endpoints are for people."
)
_TEXTS = ("a good book", "a dull film")
_MOST_NUMBERS = 4096
"""An example of more would be no help to read."""


def described(spec: Mapping[str, Any], tasks: TaskList | None, *, keys: bool) -> dict[str, Any]:
    """Return an OpenAPI description as it holds for one server.

    Args:
        spec: BentoML's.
        tasks: What is served; ``None`` where it is not to be told.
        keys: Whether requests must bring a key.
    """
    told = dict(spec)
    told["info"] = {"title": "coterie", "version": version("coterie"), "description": _ABOUT}
    if keys:
        schemes = {"key": {"type": "http", "scheme": "bearer"}}
        told["components"] = {**spec.get("components", {}), "securitySchemes": schemes}
        told["security"] = [{"key": []}]
    inputs = None if tasks is None else _inputs(tasks.inputs)
    if tasks is not None and tasks.tasks and inputs is not None:
        names = [task.name for task in tasks.tasks]
        told["paths"] = {
            **told["paths"],
            "/predict": _with_example(told["paths"]["/predict"], {"task": names[0], "inputs": inputs}),
            "/ask": _with_example(told["paths"]["/ask"], {"tasks": names[:3], "inputs": inputs}),
        }
    return told


def _with_example(path: Mapping[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    body = path["post"]["requestBody"]
    content = {**body["content"]["application/json"], "example": example}
    asked = {**body, "content": {**body["content"], "application/json": content}}
    return {**path, "post": {**path["post"], "requestBody": asked}}


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
