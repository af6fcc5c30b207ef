"""Where a configuration comes from: a preset that ships with coterie, or the user's own YAML file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coterie.runtime.errors import ConfigError
from coterie.training.config import RunConfig
from coterie.training.yaml_config import check_config, copy_config, read_yaml, resolve_paths

_FOLDER = Path(__file__).parent / "presets"


def list_presets() -> dict[str, str]:
    """Return each preset's name and the first comment of its file."""
    return {
        path.stem: path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        for path in sorted(_FOLDER.glob("*.yaml"))
    }


def load_run_config(
    source: str | Path | Mapping[str, Any], *, data: Path | None = None, overrides: Sequence[str] = ()
) -> RunConfig:
    """Read a configuration.

    Args:
        source: A preset's name, a YAML file, or what one would hold; a file's relative paths start from its
            folder.
        data: A YAML file that takes the place of the configuration's ``data``.
        overrides: ``trainer.epochs=5`` or ``--trainer.epochs 5``; relative paths start from the current
            folder.

    Raises:
        ConfigError: Lists every mistake with its path.
    """
    path = None if isinstance(source, Mapping) else _find(source)
    title = "the configuration" if path is None else f"the configuration {path.stem}"
    raw, mistakes = (copy_config(source), []) if path is None else read_yaml(path)
    raw = {} if raw is None else raw
    if isinstance(raw, dict):
        if path is not None:
            raw = resolve_paths(RunConfig, raw, path.parent)
        if data is not None:
            described, more = read_yaml(data)
            raw |= resolve_paths(RunConfig, {"data": described}, data.parent)
            mistakes = [*mistakes, *more]
        if raw.get("data") is None:
            raw.pop("data", None)
    try:
        config: RunConfig = check_config(RunConfig, raw, title=title, mistakes=mistakes, overrides=overrides)
    except ConfigError as error:
        if not any(problem.startswith("data: is missing") for problem in error.problems):
            raise
        raise ConfigError(
            f"{title} does not say on what to train",
            [*error.problems, "data: give --data FILE.yaml (see docs/data.md)"],
        ) from error
    return config


def _find(source: str | Path) -> Path:
    preset = _FOLDER / f"{source}.yaml"
    if isinstance(source, str) and preset.is_file():
        return preset
    path = Path(source)
    if path.is_file():
        return path
    names = sorted(list_presets())
    close = difflib.get_close_matches(str(source), names, n=1)
    hint = f": did you mean {close[0]!r}?" if close else ""
    raise ConfigError(
        f"{source} is neither a preset nor a file{hint}",
        [f"the presets are {', '.join(names)}", "or give a YAML file"],
    )
