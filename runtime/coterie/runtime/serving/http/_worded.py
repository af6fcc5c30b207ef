"""The errors of the application beneath, in the words of this one: JSON, and what to do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coterie.runtime.serving.http._asgi import JSON, respond

_WORDS = {404: "there is nothing at this address", 405: "this address is not asked by that method"}
_MOST = 5
"""Mistakes that are told at once."""


class JsonErrors:
    """ASGI middleware that says in JSON, and in a sentence, what the application beneath says otherwise.

    That there is nothing it says in text; of a body that is not what it takes, that there is a mistake, and
    which one somewhere below.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        begun: Message | None = None
        parts: list[bytes] = []

        async def worded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start" and _is_error(message):
                begun = message
            elif begun is None:
                await send(message)
            else:
                parts.append(message.get("body", b""))
                if not message.get("more_body", False):
                    allow = [each for each in begun.get("headers", ()) if each[0] == b"allow"]
                    body = _body(begun["status"], b"".join(parts))
                    await respond(send, body, status=begun["status"], more=allow)

        await self._app(scope, receive, worded)


def _is_error(message: Message) -> bool:
    kind: bytes = dict(message.get("headers", ())).get(b"content-type", b"")
    if message["status"] in _WORDS:
        return kind.startswith(b"text/plain")
    return bool(message["status"] == 400) and kind.startswith(JSON)


def _body(status: int, body: bytes) -> bytes:
    if status in _WORDS:
        return json.dumps({"error": _WORDS[status]}).encode()
    try:
        detail = json.loads(body)["detail"]
    except (ValueError, KeyError, TypeError):
        return body
    return json.dumps({"error": sentence(detail)}).encode() if isinstance(detail, list) else body


def sentence(detail: Iterable[Mapping[str, Any]]) -> str:
    """Return pydantic's list of mistakes in a request as a sentence."""
    found = [_told(mistake) for mistake in detail]
    more = f"; and {len(found) - _MOST} more mistakes" if len(found) > _MOST else ""
    return f"{'; '.join(found[:_MOST])}{more}: the page at / shows what this address takes"


def _told(mistake: Mapping[str, Any]) -> str:
    where = ".".join(map(str, mistake.get("loc", ()))) or "the body"
    what = str(mistake.get("msg", "is wrong"))
    what = "is missing" if mistake.get("type") == "missing" else what.replace("Input should", "should")
    return f"{where} {what}" if what.startswith(("is ", "should ")) else f"{where}: {what}"
