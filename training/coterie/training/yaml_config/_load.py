"""Typed configuration from YAML and the command line; every mistake is reported at once.

YAML is read as version 1.2 means it: ``no`` is a word and ``1e-3`` a number, and a key may stand only once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from coterie.runtime.errors import ConfigError
from coterie.training.yaml_config._mistakes import Mistake, explain
from coterie.training.yaml_config._types import default_of, joined

Model = TypeVar("Model", bound=BaseModel)

_SCALARS: tuple[tuple[str, str, str], ...] = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    found: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for name, pattern, starts in _SCALARS:
        for start in starts:
            entry = (f"tag:yaml.org,2002:{name}", re.compile(rf"^(?:{pattern})$"))
            found.setdefault("" if start == "\0" else start, []).append(entry)
    return found


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _resolvers()

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        return int(text, 0 if text[:2] in ("0x", "0o") else 10)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _resolvers()

    def represent_list(self, data: Iterable[Any]) -> yaml.SequenceNode:
        # Lists of plain values fit on a line: clusters: [3, 5, 10].
        data = list(data)
        flow = not any(isinstance(item, dict | list) for item in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # Unquoted, these few would be read as line ends.
        style = '"' if any(character in "\x85\u2028\u2029\ufeff" for character in data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Dumper.add_representer(list, _Dumper.represent_list)
_Dumper.add_representer(str, _Dumper.represent_str)


def load_config(
    model_type: type[Model], *, source: Path | Mapping[str, Any], overrides: Sequence[str] = ()
) -> Model:
    """Read a configuration, apply overrides to it, and validate it.

    Args:
        model_type: What the configuration must be.
        source: A YAML file, or what one would hold.
        overrides: ``trainer.epochs=5``, ``--trainer.epochs=5`` or, as two arguments, ``--trainer.epochs 5``;
            an element of a list by its index, from 0: ``stages.1.clusters=5``. Values are YAML.

    Raises:
        ConfigError: If anything is wrong; every mistake is listed with its path and what to do.
    """
    if isinstance(source, Path):
        raw, mistakes = read_yaml(source)
        return check_config(model_type, raw, title=source.name, mistakes=mistakes, overrides=overrides)
    return check_config(
        model_type, copy_config(source), title="the configuration", mistakes=[], overrides=overrides
    )


def check_config(
    model_type: type[Model],
    raw: Any,
    *,
    title: str,
    mistakes: Sequence[Mistake] = (),
    overrides: Sequence[str] = (),
) -> Model:
    """Apply overrides to what a file held (it is changed in place), and validate it.

    Args:
        model_type: What the configuration must be.
        raw: What the file held.
        title: What to call the configuration in an error.
        mistakes: What was found wrong before.
        overrides: As for ``load_config``.

    Raises:
        ConfigError: If anything is wrong; every mistake is listed with its path and what to do.
    """
    found = list(mistakes)
    if raw is None:
        raw = {}
    if isinstance(raw, dict):
        for path, value in _parse_overrides(overrides, found):
            _override(model_type, raw, path, value, found)
    model = None
    try:
        model = model_type.model_validate(raw)
    except ValidationError as error:
        found.extend(explain(model_type, raw, error))
    if found or model is None:
        noun = "mistake" if len(found) == 1 else "mistakes"
        raise ConfigError(f"{title} has {len(found)} {noun}:", [str(mistake) for mistake in found])
    return model


def dump_config(model: BaseModel) -> str:
    """Return a configuration as YAML, in the order of declaration; ``load_config`` reads it back."""
    return str(
        yaml.dump(
            model.model_dump(mode="json"),
            Dumper=_Dumper,
            sort_keys=False,
            allow_unicode=True,
            default_flow_style=False,
        )
    )


def read_yaml(path: Path) -> tuple[Any, list[Mistake]]:
    """Return what a YAML file holds, and the keys that stand twice in it.

    Raises:
        ConfigError: If it cannot be read or is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"cannot read {path}: {reason}; check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {path}: it is not UTF-8 text; save it as UTF-8") from error
    return _parse(text, path.name)


def _parse(text: str, title: str) -> tuple[Any, list[Mistake]]:
    """Return what a YAML text holds, and the keys that stand twice."""
    mistakes: list[Mistake] = []
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, mistakes
        _find_duplicates(node, (), mistakes, set())
        return loader.construct_document(node), mistakes
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or type(error).__name__
        raise ConfigError(
            f"{title}{at}: is not YAML ({reason}); look for wrong indentation or a missing quote"
        ) from error
    finally:
        loader.dispose()


def _find_duplicates(
    node: yaml.Node, path: tuple[str | int, ...], mistakes: list[Mistake], seen: set[int]
) -> None:
    if id(node) in seen:  # an alias: what it stands for has been looked at
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _find_duplicates(item, (*path, index), mistakes, seen)
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value)
            line = key.start_mark.line + 1
            if name in first and name != "<<":
                mistakes.append(
                    Mistake(
                        (*path, name), f"stands twice, on lines {first[name]} and {line}: remove one of them"
                    )
                )
            first.setdefault(name, line)
            _find_duplicates(value, (*path, name), mistakes, seen)


def copy_config(value: Any) -> Any:
    """Return a configuration's dictionaries and lists, copied: overrides change them in place."""
    if isinstance(value, Mapping):
        return {key: copy_config(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [copy_config(item) for item in value]
    return value


def _parse_overrides(overrides: Sequence[str], mistakes: list[Mistake]) -> list[tuple[tuple[str, ...], Any]]:
    found = []
    waiting = list(overrides)
    while waiting:
        word = waiting.pop(0)
        name, equals, text = word.removeprefix("--").partition("=")
        if not equals:
            if not word.startswith("--") or not waiting or _is_option(waiting[0]):
                what = "is not an override: write path=value, or --path value"
                mistakes.append(Mistake((), f"{word!r} {what}"))
                continue
            text = waiting.pop(0)
        path = tuple(name.split("."))
        if not all(path):
            mistakes.append(
                Mistake(
                    (), f"{word!r}: the path {name!r} has an empty part: write for example trainer.epochs"
                )
            )
            continue
        try:
            value, twice = _parse(text, name)
        except ConfigError:
            mistakes.append(Mistake(path, f"{text!r} is not a YAML value: quote it"))
            continue
        mistakes.extend(Mistake((*path, *mistake.path), mistake.what) for mistake in twice)
        found.append((path, value))
    return found


def _is_option(word: str) -> bool:
    return re.match(r"--[A-Za-z_]", word) is not None


def _override(
    model_type: type[BaseModel],
    raw: dict[str, Any],
    path: tuple[str, ...],
    value: Any,
    mistakes: list[Mistake],
) -> None:
    """Set one value; groups that the file leaves out start from their defaults."""
    group: Any = raw
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(group, dict):
            if last:
                group[part] = value
                return
            if group.get(part) is None:
                known = default_of(model_type, raw, path[: depth + 1])
                group[part] = {} if known is None else known
            group = group[part]
        elif isinstance(group, list):
            if not part.isdecimal() or int(part) >= len(group):
                size = f"{len(group)} element" + ("" if len(group) == 1 else "s")
                what = f"cannot be set: {joined(path[:depth])} has {size}, counted from 0"
                mistakes.append(Mistake(path, what))
                return
            if last:
                group[int(part)] = value
                return
            group = group[int(part)]
        else:
            what = f"cannot be set: {joined(path[:depth])} is {group!r}, which has no options"
            mistakes.append(Mistake(path, what))
            return
