"""What to say when a command needs a part that is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_PART_OF = {
    "serve": (
        "bentoml",
        "grpc",
        "grpc_health",
        "grpc_reflection",
        "grpc_status",
        "google",
        "opentelemetry",
        "prometheus_client",
        "starlette",
        "uvloop",
        "httptools",
    ),
    "train": (
        "torch",
        "sklearn",
        "scipy",
        "pyarrow",
        "yaml",
        "safetensors",
        "tensorboard",
        "matplotlib",
        "jinja2",
    ),
    "export": ("onnx", "onnx_ir", "onnxscript"),
}


@contextmanager
def extra(name: str, purpose: str) -> Iterator[None]:
    """Turn a missing module of an extra, imported in this context, into a ``MissingExtraError``."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        known = {module for modules in _PART_OF.values() for module in modules} | {"coterie"}
        if missing not in known:
            raise
        from coterie.runtime.errors import MissingExtraError

        raise MissingExtraError(name, purpose) from error
