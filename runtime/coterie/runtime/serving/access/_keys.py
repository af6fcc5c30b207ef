"""The file of API keys: who may ask which tasks.

A key is ``cot_ID_SECRET``. The file holds the id, and of the secret, which is 256 random bits, the SHA-256:
whoever reads the file cannot ask with it. The key itself is told once, when it is made.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coterie.runtime._json import unique_names
from coterie.runtime.durable import locked, write_file
from coterie.runtime.errors import ConfigError

PREFIX = "cot"
_HEX_ID = r"^[0-9a-f]{16}$"
_HEX_HASH = r"^[0-9a-f]{64}$"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KeyEntry(_Frozen):
    """What is known of one key."""

    name: str = Field(min_length=1, max_length=100)
    """Whose it is: for the one who runs the server."""
    id: str = Field(pattern=_HEX_ID)
    sha256: str = Field(pattern=_HEX_HASH)
    """Of the key's secret part."""
    tasks: tuple[str, ...] = ("*",)
    """Names of the tasks that it may ask; ``*`` stands for any characters, ``?`` for one."""
    metrics: bool = False
    """Whether it may read ``/metrics``, which names all tasks."""
    made: str = ""
    """When it was made."""


class _KeyFile(_Frozen):
    keys: tuple[KeyEntry, ...] = ()


def digest(secret: str) -> str:
    """Return what the file holds of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def split(key: str) -> tuple[str, str]:
    """Return a key's id and secret; both empty where it is none."""
    prefix, _, rest = key.partition("_")
    identifier, _, secret = rest.partition("_")
    return (identifier, secret) if prefix == PREFIX else ("", "")


def read_keys(file: str | os.PathLike[str]) -> tuple[KeyEntry, ...]:
    """Read a file of keys.

    Raises:
        ConfigError: If it cannot be read; lists all that is wrong.
    """
    path = Path(file)
    try:
        entries = _KeyFile.model_validate(
            json.loads(path.read_bytes(), object_pairs_hook=unique_names), strict=False
        ).keys
    except OSError as error:
        raise ConfigError(f"the keys in {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise ConfigError(f"the keys in {path} are wrong", problems) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the keys in {path} are not JSON; make one with: coterie key") from error
    for field in ("id", "name"):
        values = [getattr(entry, field) for entry in entries]
        if len(set(values)) != len(values):
            raise ConfigError(f"the keys in {path} are wrong", [f"two of them have the same {field}"])
    return entries


def add_key(
    file: str | os.PathLike[str], name: str, *, tasks: Iterable[str] = ("*",), metrics: bool = False
) -> str:
    """Make a key, note it in a file, and return it: it is nowhere else.

    Args:
        file: The file; made where there is none, readable to its owner alone.
        name: Whose key it is.
        tasks: Patterns of the tasks that it may ask.
        metrics: Whether it may read ``/metrics``.

    Raises:
        ConfigError: If the file is wrong, or there is a key of that name.
    """
    path = Path(file).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    identifier, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    with locked(path.parent):
        entries = read_keys(path) if path.exists() else ()
        if any(entry.name == name for entry in entries):
            raise ConfigError(f"there is a key of {name!r} already: choose another name, or revoke that one")
        try:
            entry = KeyEntry(
                name=name,
                id=identifier,
                sha256=digest(secret),
                tasks=tuple(tasks),
                metrics=metrics,
                made=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        except ValidationError as error:
            raise ConfigError(f"a key cannot be made for {name!r}: {error.errors()[0]['msg']}") from error
        _write(path, (*entries, entry))
    return f"{PREFIX}_{identifier}_{secret}"


def revoke_key(file: str | os.PathLike[str], name: str) -> None:
    """Take a key out of a file.

    Raises:
        ConfigError: If the file is wrong, or has no key of that name.
    """
    path = Path(file).absolute()
    if not path.is_file():
        raise ConfigError(f"there are no keys in {path}")
    with locked(path.parent):
        entries = read_keys(path)
        left = tuple(entry for entry in entries if entry.name != name)
        if len(left) == len(entries):
            names = ", ".join(entry.name for entry in entries)
            raise ConfigError(f"there is no key of {name!r}: there is {names or 'none'}")
        _write(path, left)


def _write(path: Path, entries: tuple[KeyEntry, ...]) -> None:
    content = _KeyFile(keys=entries).model_dump_json(indent=1) + "\n"
    write_file(path, content.encode(), mode=0o600)
