"""What type stands at a path of a configuration."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, RootModel
from pydantic.fields import FieldInfo

Path = tuple[str | int, ...]

AbsolutePath = Annotated[FilePath, AfterValidator(FilePath.absolute)]
"""A path that means the same wherever a later command is given."""


def joined(path: Sequence[str | int]) -> str:
    """Return a path as a person writes it: ``stages.2.clusters``."""
    return ".".join(map(str, path))


@dataclass(frozen=True)
class Place:
    """A type, and the field that tells its members apart when it is a union.

    Attributes:
        type: The annotation without ``Annotated`` and ``None``.
        discriminator: Name of that field, if any.
    """

    type: Any
    discriminator: str | None = None

    @property
    def members(self) -> tuple[Any, ...]:
        """The members of a union; nothing for any other type."""
        return (
            tuple(m for m in get_args(self.type) if m is not types.NoneType) if _is_union(self.type) else ()
        )

    @property
    def model(self) -> type[BaseModel] | None:
        """The model, if that is what stands here."""
        return self.type if isinstance(self.type, type) and issubclass(self.type, BaseModel) else None


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def place(annotation: Any, discriminator: Any = None) -> Place:
    """Strip an annotation down to what it is."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *extra = get_args(annotation)
            for item in extra:
                if isinstance(item, FieldInfo) and item.discriminator is not None:
                    discriminator = item.discriminator
            continue
        if isinstance(annotation, type) and issubclass(annotation, RootModel):
            root = annotation.model_fields["root"]
            annotation, discriminator = root.annotation, root.discriminator
            continue
        if _is_union(annotation):
            members = [member for member in get_args(annotation) if member is not types.NoneType]
            if len(members) == 1:
                annotation = members[0]
                continue
        return Place(annotation, discriminator if isinstance(discriminator, str) else None)


def below(here: Place, part: str | int) -> Place:
    """Return what stands under a key or an index; ``Any`` where nothing is known."""
    model = here.model
    if model is not None:
        field = model.model_fields.get(str(part))
        return place(field.annotation, field.discriminator) if field is not None else Place(Any)
    origin, arguments = get_origin(here.type), get_args(here.type)
    if origin is tuple and arguments:
        repeated = len(arguments) == 2 and arguments[1] is Ellipsis
        if repeated:
            return place(arguments[0])
        return place(arguments[part]) if isinstance(part, int) and part < len(arguments) else Place(Any)
    if isinstance(origin, type) and issubclass(origin, Mapping) and len(arguments) == 2:
        return place(arguments[1])
    if isinstance(origin, type) and issubclass(origin, Sequence) and arguments:
        return place(arguments[0])
    return Place(Any)


def literals(annotation: Any) -> tuple[Any, ...]:
    """Return the values that a ``Literal`` allows."""
    inner = place(annotation).type
    return get_args(inner) if get_origin(inner) is Literal else ()


def member(here: Place, value: Any) -> Place:
    """Return the member of a tagged union that a value (or a tag) chooses; the place itself otherwise."""
    if here.discriminator is None:
        return here
    for candidate in here.members:
        chosen = place(candidate)
        if chosen.discriminator is not None and chosen.members:
            inner = member(chosen, value)
            if inner is not chosen:
                return inner
        model = chosen.model
        if model is None or here.discriminator not in model.model_fields:
            continue
        field = model.model_fields[here.discriminator]
        tag = value.get(here.discriminator, field.default) if isinstance(value, Mapping) else value
        if tag in literals(field.annotation):
            return chosen
    return here


def default_of(model_type: type[BaseModel], raw: Any, path: Sequence[str]) -> Any:
    """Return the default of a group of options as YAML would hold it, None when there is none."""
    here, value = place(model_type), raw
    field: FieldInfo | None = None
    for part in path:
        here = member(here, value if isinstance(value, Mapping) else {})
        model = here.model
        field = model.model_fields.get(part) if model is not None else None
        here = below(here, int(part) if isinstance(value, list) and part.isdecimal() else part)
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            value = None
    if field is None or field.is_required():
        return None
    return _seed(field.get_default(call_default_factory=True, validated_data={}))


def _seed(default: Any) -> Any:
    """Keep the tags, and what differs from a model's own defaults: another tag may know no such option."""
    if isinstance(default, BaseModel):
        kept = {}
        for name, field in type(default).model_fields.items():
            value = getattr(default, name)
            own = field.get_default(call_default_factory=True, validated_data={})
            if field.is_required() or value != own or len(literals(field.annotation)) == 1:
                kept[name] = _seed(value)
        return kept
    if isinstance(default, Mapping):
        return {key: _seed(value) for key, value in default.items()}
    if isinstance(default, list | tuple):
        return [_seed(value) for value in default]
    return default
