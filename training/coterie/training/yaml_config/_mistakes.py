"""Validation errors in plain words, at the path that the user wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from coterie.training.yaml_config._types import Path, Place, below, joined, literals, member, place

_LONGEST = 60

_EXPECTED = {
    "int": "must be a whole number",
    "float": "must be a number",
    "finite_number": "must be a finite number",
    "bool": "must be true or false",
    "string": "must be a text",
    "list": "must be a list",
    "tuple": "must be a list",
    "set": "must be a list",
    "dict": "must be a group of named values",
    "mapping": "must be a group of named values",
    "model": "must be a group of options",
    "path": "must be a path",
    "none": "must be null",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
    "multiple_of": ("a multiple of", "multiple_of"),
}
_LENGTHS = {
    "too_short": ("at least", "min_length", "element"),
    "too_long": ("at most", "max_length", "element"),
    "string_too_short": ("at least", "min_length", "character"),
    "string_too_long": ("at most", "max_length", "character"),
}


@dataclass(frozen=True)
class Mistake:
    """One mistake: the path that the user wrote (empty: the whole), and what to do about it."""

    path: Path
    what: str

    def __str__(self) -> str:
        return f"{joined(self.path)}: {self.what}" if self.path else self.what


def explain(model_type: type[BaseModel], raw: Any, error: ValidationError) -> list[Mistake]:
    """Return each mistake once, in pydantic's order.

    What several members of a union want of one value is one mistake.
    """
    wants: dict[Path, list[str]] = {}
    found: dict[tuple[Path, str], Mistake] = {}
    for item in error.errors(include_url=False):
        path, here, parent = _locate(model_type, raw, item)
        wanted = _wanted(item)
        if wanted is None:
            what = _other(item, here, parent)
            found.setdefault((path, what), Mistake(path, what))
            continue
        seen = wants.setdefault(path, [])
        if wanted not in seen:
            seen.append(wanted)
        found[path, ""] = Mistake(path, _unmet(seen, item["input"]))
    return list(found.values())


def _locate(model_type: type[BaseModel], raw: Any, item: ErrorDetails) -> tuple[Path, Place, Place]:
    """Return the path that the user wrote, what stands there, and what it stands in.

    Dropped is what pydantic adds to a location: the tags of unions, and the names of their members.
    """
    here = parent = place(model_type)
    value = raw
    path: list[str | int] = []
    for depth, part in enumerate(item["loc"]):
        if here.members:
            chosen = member(here, part) if here.discriminator is not None else _named(here, part)
            # A union without a tag labels a member by a name of its own, which nobody wrote.
            here = chosen if chosen is not here else Place(Any)
            continue
        absent = item["type"] == "missing" and depth == len(item["loc"]) - 1
        if part == "[key]" or (here.type is Any and not absent and not _holds(value, part)):
            continue
        path.append(part)
        parent, here = here, below(here, part)
        value = _inside(value, part)
    if item["type"].startswith("union_tag"):
        path.append(here.discriminator or "kind")
    return tuple(path), here, parent


def _named(here: Place, label: str | int) -> Place:
    for candidate in here.members:
        chosen = place(candidate)
        if getattr(chosen.type, "__name__", None) == label:
            return chosen
    return here


def _holds(value: Any, part: str | int) -> bool:
    if isinstance(value, Mapping):
        return part in value
    return isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)


def _inside(value: Any, part: str | int) -> Any:
    return value[part] if _holds(value, part) else None


def _wanted(item: ErrorDetails) -> str | None:
    """Return what a value should be, or None when the mistake is of another sort."""
    kind, context = item["type"], item.get("ctx", {})
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        bound = context[key]
        return f"must be {word} {int(bound) if bound == int(bound) else bound}"
    if kind in _LENGTHS:
        word, key, unit = _LENGTHS[kind]
        count = context[key]
        return f"must have {word} {count} {unit}{'' if count == 1 else 's'}"
    if kind in ("literal_error", "enum"):
        return f"must be {context['expected']}"
    if kind == "string_pattern_mismatch":
        return f"must match {context['pattern']}"
    return _EXPECTED.get(re.sub(r"(_attributes)?_(type|parsing|parsing_size|from_float|required)$", "", kind))


def _unmet(wants: Sequence[str], value: Any) -> str:
    first, *others = wants
    wanted = " or ".join([first, *(want.removeprefix("must be ") for want in others)])
    if isinstance(value, str):
        wanted += _hint(value, re.findall(r"'([^']*)'", wanted))
    return f"is {_shown(value)}: {wanted}"


def _hint(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _other(item: ErrorDetails, here: Place, parent: Place) -> str:
    kind = item["type"]
    if kind == "extra_forbidden":
        return _unknown_option(str(item["loc"][-1]), parent)
    if kind == "missing":
        return f"is missing: add it{_kinds_of(here)}"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        tags = [str(tag) for tag in _tags(here)]
        listed = f"must be one of {', '.join(tags)}"
        if kind == "union_tag_not_found":
            return f"is missing: add it; it {listed}"
        tag = str(item["ctx"]["tag"])
        return f"is {tag!r}: {listed}{_hint(tag, tags)}"
    message = item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind in ("value_error", "assertion_error"):
        return message
    return f"is {_shown(item['input'])}: {message[:1].lower() + message[1:]}"


def _unknown_option(name: str, parent: Place) -> str:
    known = list(parent.model.model_fields) if parent.model is not None else []
    close = get_close_matches(name, known, n=1)
    if close:
        return f"unknown option {name!r}: did you mean {close[0]!r}?"
    return f"unknown option {name!r}: remove it; the options are {', '.join(known)}"


def _kinds_of(here: Place) -> str:
    tags = literals(here.type)
    return f"; it must be one of {', '.join(map(str, tags))}" if tags else ""


def _tags(here: Place) -> list[Any]:
    found: list[Any] = []
    for candidate in here.members:
        chosen = place(candidate)
        if chosen.members and chosen.discriminator is not None:
            found.extend(_tags(chosen))
        elif chosen.model is not None and here.discriminator in chosen.model.model_fields:
            found.extend(literals(chosen.model.model_fields[here.discriminator].annotation))
    return found


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a group of named values"
    text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
