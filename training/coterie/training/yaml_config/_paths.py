"""Paths in a YAML file start from the file's own folder: found by the type that stands where they do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from coterie.training.yaml_config._types import Place, below, member, place


def resolve_paths(model_type: type[BaseModel], raw: Any, folder: Path) -> Any:
    """Return a configuration as YAML holds it, its relative paths starting from ``folder``.

    Args:
        model_type: What it is to become; what stands where this has a ``Path`` is one.
        raw: Mappings, lists and scalars; it is not changed.
        folder: Where relative paths start.
    """
    return _resolved(place(model_type), raw, folder)


def _resolved(here: Place, raw: Any, folder: Path) -> Any:
    if isinstance(raw, str):
        return str(folder / raw) if _is_path(here) else raw
    if isinstance(raw, Mapping):
        inside = _chosen(here, raw)
        return {key: _resolved(below(inside, str(key)), value, folder) for key, value in raw.items()}
    if isinstance(raw, list):
        inside = _chosen(here, raw)
        return [_resolved(below(inside, number), value, folder) for number, value in enumerate(raw)]
    return raw


def _is_path(here: Place) -> bool:
    """Return whether a text is a path here: where one is wanted, or several by name, and it is the one."""
    if any(_is_path(place(each)) for each in here.members):
        return True
    arguments = get_args(here.type)
    return here.type is Path or (get_origin(here.type) is dict and place(arguments[1]).type is Path)


def _chosen(here: Place, raw: Any) -> Place:
    """Return what a value is: of a union the member by its tag, else the first that can hold such a value."""
    if isinstance(raw, Mapping) and get_origin(here.type) is tuple:  # one that stands for a list of one
        return _chosen(below(here, 0), raw)
    if not here.members:
        return here
    tagged = member(here, raw)
    if tagged is not here:
        return tagged
    wanted = (dict, Mapping) if isinstance(raw, Mapping) else (list, tuple)
    for each in map(place, here.members):
        if each.members:
            return _chosen(each, raw)
        if get_origin(each.type) in wanted or (isinstance(raw, Mapping) and each.model is not None):
            return each
    return here
