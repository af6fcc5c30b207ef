"""Typed configuration from YAML and the command line; every mistake is reported at once."""

from coterie.training.yaml_config._load import check_config, copy_config, dump_config, load_config, read_yaml
from coterie.training.yaml_config._mistakes import Mistake
from coterie.training.yaml_config._paths import resolve_paths
from coterie.training.yaml_config._types import AbsolutePath

__all__ = [
    "AbsolutePath",
    "Mistake",
    "check_config",
    "copy_config",
    "dump_config",
    "load_config",
    "read_yaml",
    "resolve_paths",
]
