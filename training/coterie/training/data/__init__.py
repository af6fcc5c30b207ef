"""Data sets: tables, NumPy archives, and two that are built in.

config = read_data_config(Path("data.yaml"))
data = load_data(config)
data.splits["train"].inputs.batch(np.array([0, 1, 2]))
"""

from __future__ import annotations

from coterie.training.data._config import (
    ArrayConfig,
    DataConfig,
    DigitsConfig,
    MemoryConfig,
    PlantedConfig,
    SplitColumn,
    TableConfig,
    TokenOptions,
)
from coterie.training.data._dataset import (
    Dataset,
    DenseInputs,
    Inputs,
    JoinedInputs,
    Split,
    Text,
    TokenInputs,
    Truth,
    join_splits,
)
from coterie.training.data._memory import dataset_of
from coterie.training.data._read_config import read_data_config

__all__ = [
    "ArrayConfig",
    "DataConfig",
    "Dataset",
    "DenseInputs",
    "DigitsConfig",
    "Inputs",
    "JoinedInputs",
    "MemoryConfig",
    "PlantedConfig",
    "Split",
    "SplitColumn",
    "TableConfig",
    "Text",
    "TokenInputs",
    "TokenOptions",
    "Truth",
    "dataset_of",
    "join_splits",
    "load_data",
    "read_data_config",
]


def load_data(config: DataConfig) -> Dataset:
    """Read or make a data set; relative paths start from the current folder.

    Raises:
        DataError: If anything in the data is wrong; every mistake is listed with file, row and column.
    """
    if isinstance(config, MemoryConfig):
        from coterie.runtime.errors import DataError

        raise DataError(
            "the configuration names data in memory: make a data set with dataset_of, and give it to train"
        )
    if isinstance(config, TableConfig):
        from coterie.training.data._table import load_table

        return load_table(config)
    if isinstance(config, ArrayConfig):
        from coterie.training.data._arrays import load_arrays

        return load_arrays(config)
    if isinstance(config, DigitsConfig):
        from coterie.training.data._digits import load_digits_data

        return load_digits_data(config)
    from coterie.training.data._planted import load_planted

    return load_planted(config)
