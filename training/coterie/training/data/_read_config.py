"""Reading which data to use, and which column is what, from YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import RootModel

from coterie.training.data._config import DataConfig
from coterie.training.yaml_config import check_config, load_config, read_yaml, resolve_paths


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
    raw = resolve_paths(_Data, raw, source.parent)
    return check_config(_Data, raw, title=source.name, mistakes=mistakes, overrides=overrides).root
