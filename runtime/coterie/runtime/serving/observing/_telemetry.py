"""Where spans go, by the variables that OpenTelemetry itself has for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import trace

from coterie.runtime.errors import ConfigError, MissingExtraError
from coterie.runtime.serving.observing._tracing import Tracing

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def tracing_from(environment: Mapping[str, str]) -> Tracing | None:
    """Return what makes the spans that OpenTelemetry's own variables ask for; ``None`` if they ask for none.

    Where the process has a provider already (``opentelemetry-instrument``), that is used.

    Raises:
        ConfigError: If they ask for what is not there.
        MissingExtraError: If they ask for spans and ``coterie[otel]`` is not installed.
    """
    provider = trace.get_tracer_provider()
    if not isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        return Tracing(provider)
    exporter = exporter_from(environment)
    if exporter is None:
        return None
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes before.
    named = environment.get("OTEL_SERVICE_NAME") or "service.name=" in environment.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    made = TracerProvider(resource=Resource.create({} if named else {"service.name": "coterie"}))
    made.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(made)


def exporter_from(environment: Mapping[str, str]) -> Any:
    """Return what sends spans where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says, or ``None``; raises as above.

    ``OTEL_TRACES_EXPORTER`` may say ``otlp``, ``console`` or ``none`` instead.
    """
    asked = "otlp" if any(environment.get(name) for name in _ENDPOINTS) else "none"
    name = environment.get("OTEL_TRACES_EXPORTER") or asked
    if name == "none" or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    off = "OTEL_TRACES_EXPORTER=none sends none"
    if name not in ("otlp", "console"):
        problem = f"OTEL_TRACES_EXPORTER: {name!r} is not otlp or console; {off}"
        raise ConfigError("spans cannot be sent", [problem])
    protocol = next((environment[key] for key in _PROTOCOLS if environment.get(key)), "http/protobuf")
    if name == "otlp" and protocol != "http/protobuf":
        problem = f"{_PROTOCOLS[1]}: only http/protobuf is spoken, not {protocol!r}; {off}"
        raise ConfigError("spans cannot be sent", [problem])
    try:
        if name == "console":
            from opentelemetry.sdk.trace.export import ConsoleSpanExporter

            return ConsoleSpanExporter()
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    except ModuleNotFoundError as error:
        raise MissingExtraError("otel", "sending spans where OTEL_EXPORTER_OTLP_ENDPOINT says") from error
