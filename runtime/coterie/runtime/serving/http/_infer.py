"""Questions of the Open Inference Protocol v2 over HTTP: the one address where every microsecond counts.

Bare ASGI: a router that tries twenty patterns, request and response objects, and middleware cost more than
all that is done here.
"""

from __future__ import annotations

import json
from collections.abc import Container

from starlette.types import Receive, Scope, Send

from coterie.runtime.serving.access._callers import Caller
from coterie.runtime.serving.http import _codec as codec
from coterie.runtime.serving.http._asgi import Headers, read_body, respond, respond_error, while_connected
from coterie.runtime.serving.http._receiving import Receiving
from coterie.runtime.serving.http._urgency import urgency_of
from coterie.runtime.serving.models._models import Models
from coterie.runtime.serving.models._turns import Urgency
from coterie.runtime.serving.observing._calls import suggest_id

PREFIX, SUFFIX = "/v2/models/", "/infer"
_HEADER = b"inference-header-content-length"


def is_question(path: str) -> bool:
    """Return whether a path is one that ``model_of`` takes: a task may be called ``infer`` too."""
    return path.startswith(PREFIX) and path.endswith(SUFFIX) and len(path) > len(PREFIX) + len(SUFFIX)


def model_of(path: str, odd: Container[str] = ()) -> tuple[str, str]:
    """Return model and version of ``/v2/models/MODEL[/versions/VERSION]/infer``; a name may hold slashes.

    Args:
        path: The address.
        odd: Models whose names look as if they said a version.
    """
    name = path[len(PREFIX) : -len(SUFFIX)]
    if name in odd:
        return name, ""
    model, found, version = name.rpartition("/versions/")
    return (model, version) if found and version and "/" not in version else (name, "")


async def infer(
    scope: Scope,
    headers: Headers,
    receive: Receive,
    send: Send,
    *,
    models: Models,
    caller: Caller,
    limit: int,
    receiving: Receiving,
) -> None:
    """Answer a question.

    Args:
        scope: ASGI's, of a path that ``model_of`` takes.
        headers: Of the request.
        receive: ASGI's.
        send: ASGI's.
        models: Who answers.
        caller: Who asks.
        limit: Largest body, in bytes, packed or unpacked.
        receiving: Counts the bodies that come.
    """
    if scope["method"] != "POST":
        body = json.dumps({"error": "a question is a POST"}).encode()
        await respond(send, body, status=405, more=[(b"allow", b"POST")])
        return
    name, version = model_of(scope["path"], models.odd)
    encoding = headers.get(b"content-encoding", b"").decode("latin-1")
    length = headers.get(_HEADER)
    head = None if length is None else length.decode("latin-1")

    async def answer(body: bytes) -> tuple[bytes, int | None]:
        def urgency() -> Urgency:
            return Urgency() if encoding else urgency_of(body, head)

        async with models.turns.of(name, len(body), urgency) as since:
            with models.counting_refusals(name, "http"):
                body = codec.decompress(body, encoding, limit)
                asked = codec.decode(name, version, body, head, caller)
                suggest_id(asked.id)
            question = asked.question.waited(since)
            return codec.encode(await models.answer(question, transport="http"), asked)

    try:
        with models.counting_refusals(name, "http"):
            models.find(version).info(name, caller)  # an unknown model is 404, whatever the body
            body = await read_body(headers, receive, limit, receiving)
            models.check_room(name, version, len(body))
        content, header = await while_connected(receive, answer(body))
    except Exception as error:
        await respond_error(send, error)
        return
    if header is None:
        await respond(send, content)
    else:
        await respond(send, content, b"application/octet-stream", more=[(_HEADER, b"%d" % header)])
