"""How urgent a question is, before it is read: to read it is what it may have to wait for."""

from __future__ import annotations

import re

from coterie.runtime.serving.models._questions import PRIORITY, priority_of, timeout_of
from coterie.runtime.serving.models._turns import Urgency

_PARAMETER = re.compile(rb'"(priority|timeout)"\s*:\s*(\d{1,18})(?!\d)')
_END = 4096
"""Bytes at the beginning and the end of a question in JSON that are looked at: its tensors lie between."""


def urgency_of(body: bytes, header_length: str | None) -> Urgency:
    """Return what a question in JSON seems to say of itself; what it means is found when it is read.

    Quotation marks inside of texts are escaped in JSON, so a name between bare ones is a member's.

    Args:
        body: The request's, not compressed.
        header_length: How much of it is JSON, where it has binary tensors.
    """
    length = int(header_length) if header_length is not None and header_length.isdecimal() else len(body)
    head = body[:_END], body[max(_END, length - _END) : length]
    found = {name: int(value) for part in head for name, value in _PARAMETER.findall(part[:length])}
    priority = found.get(b"priority", PRIORITY)
    return Urgency(priority_of(min(priority, PRIORITY + 1)), timeout_of(found.get(b"timeout")))
