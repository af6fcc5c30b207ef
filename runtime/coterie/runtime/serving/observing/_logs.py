"""A worker's log: a line for each question, and all of it as JSON where that is asked for."""

from __future__ import annotations

import json
import logging
import random
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TextIO

from pydantic import ValidationError

from coterie.runtime.serving.observing._calls import Call, current_call

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class AccessLog:
    """Writes a line for each call that asked a model, or went wrong; a sink of ``Calls``.

    No line holds an input, an answer or a key. It is not written through ``logging``, which would take
    several times as long.

    Args:
        stream: Where the lines go.
        share: Of the calls that were answered, from 0 to 1; of those that failed all have a line.
        as_json: An object a line, instead of words.
    """

    def __init__(self, stream: TextIO, *, share: float = 1.0, as_json: bool = False) -> None:
        self._stream = stream
        self._share = share
        # Which calls are told need not be hard to guess.
        self._random = random.Random()  # noqa: S311
        self._line = _json_line if as_json else _text_line

    def finished(self, call: Call, seconds: float) -> None:
        """Write the line of a call that took so many seconds."""
        if not call.failed and (call.done is None or self._random.random() >= self._share):
            return
        # A log that nobody can write is no reason to fail a request.
        with suppress(OSError, ValueError):
            # In one write: the lines of several workers do not run into each other.
            self._stream.write(self._line(call, seconds))
            self._stream.flush()


def _json_line(call: Call, seconds: float) -> str:
    line: dict[str, Any] = {
        "time": _now(),
        "level": "info",
        "logger": "coterie.access",
        "id": call.id,
        "status": call.status,
        "ms": _ms(seconds),
    }
    if call.trace:
        line["trace"] = call.trace
    done = call.done
    if done is None:
        line |= {"transport": call.transport, "request": call.what}
        return _encode(line) + "\n"
    line |= {
        "transport": done.transport,
        "model": done.model,
        "version": done.version,
        "outcome": done.outcome,
        "questions": done.questions,
    }
    if done.timing is not None:
        line["queue_ms"] = _ms(done.timing.started - done.timing.arrived)
        line["run_ms"] = _ms(done.timing.seconds)
        line["batch"] = done.timing.rows
    return _encode(line) + "\n"


def _text_line(call: Call, seconds: float) -> str:
    done, ending = call.done, f"{_ms(seconds)} ms id={call.id}"
    if call.trace:
        ending += f" trace={call.trace}"
    if done is None:
        # A path may hold anything, also what would look like another line.
        return f"{_now()} {call.transport} {call.what!r} {call.status} {ending}\n"
    if done.timing is not None:
        waited = _ms(done.timing.started - done.timing.arrived)
        ending = f"queue {waited} ms, run {_ms(done.timing.seconds)} ms of {done.timing.rows}, in {ending}"
    asked = f"{done.transport} {done.model} v{done.version} {done.outcome} {call.status}"
    return f"{_now()} {asked} questions {done.questions}, {ending}\n"


class JsonFormatter(logging.Formatter):
    """Formats a record of ``logging`` as an object a line, with the id of the call that it is about."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": _now(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        call = current_call()
        if call is not None:
            line["id"] = call.id
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return _encode(line)


class _ClientsMistakes(logging.Filter):
    """Leaves out what a client did wrong: it was told, and the record would hold what it sent."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is of anything else."""
        error = record.exc_info[1] if record.exc_info else None
        status = getattr(getattr(error, "error_code", None), "value", 500)
        return not isinstance(error, ValidationError) and status >= 500


def leave_out_clients_mistakes() -> None:
    """Let BentoML, to which a refused body is an error of its own, log errors of the server only."""
    logging.getLogger("bentoml._internal.server.http_app").addFilter(_ClientsMistakes())


def log_as_json() -> None:
    """Let whatever this process logs be JSON; for a worker, which owns its process."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):
            handler.setFormatter(JsonFormatter())


def _now(seconds: float | None = None) -> str:
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds")


def _ms(seconds: float) -> float:
    return round(1000 * max(0.0, seconds), 3)
