"""Reading which data to use, and which column is what, from YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import RootModel

from coterie.training.data._config import DataConfig
from coterie.training.yaml_config import check_config, load_config, read_yaml


class _Data(RootModel[DataConfig]):
    pass


def read_data_config(source: Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> DataConfig:
    """Read a data configuration and apply overrides such as ``path=reviews.parquet``.

    Relative paths in a YAML file start from its folder; those in overrides start from the current one.

    Raises:
        ConfigError: If anything is wrong; every mistake is listed with its path.
    """
    if not isinstance(source, Path):
        return load_config(_Data, source=source, overrides=overrides).root
    raw, mistakes = read_yaml(source)
    raw = resolve_paths(raw, source.parent)
    return check_config(_Data, raw, title=source.name, mistakes=mistakes, overrides=overrides).root


def resolve_paths(raw: Any, folder: Path) -> Any:
    """Return a data configuration as YAML holds it, its relative paths starting from ``folder``."""
    if not isinstance(raw, dict):
        return raw
    found = {"path": _from(folder, raw["path"])} if "path" in raw else {}
    tokens = raw.get("tokens")
    if isinstance(tokens, dict) and "file" in tokens:
        found["tokens"] = {**tokens, "file": _from(folder, tokens["file"])}
    return {**raw, **found}


def _from(folder: Path, value: Any) -> Any:
    if isinstance(value, str):
        return str(folder / value)
    if isinstance(value, dict):
        return {key: _from(folder, item) for key, item in value.items()}
    return value
