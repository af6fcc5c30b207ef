"""Train clustered multi-task models: learn which tasks share which weights.

config = load_run_config("digits", overrides=["trainer.epochs=5"])
run = train(config, Path("runs/digits"))
run.model.plan()
"""

from coterie.training._presets import list_presets, load_run_config
from coterie.training.config import ModelConfig, RunConfig, TrainerConfig
from coterie.training.data import Dataset, dataset_of, load_data, read_data_config
from coterie.training.frozen import FrozenBank, FrozenModel
from coterie.training.loop.progress import ConsoleWatcher, Watcher
from coterie.training.model import MultiTaskModel, build_model
from coterie.training.run import Run, load_run, train

__all__ = [
    "ConsoleWatcher",
    "Dataset",
    "FrozenBank",
    "FrozenModel",
    "ModelConfig",
    "MultiTaskModel",
    "Run",
    "RunConfig",
    "TrainerConfig",
    "Watcher",
    "build_model",
    "dataset_of",
    "list_presets",
    "load_data",
    "load_run",
    "load_run_config",
    "read_data_config",
    "train",
]
