"""Whose a run folder is: one training's, and no other's while that goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from coterie.runtime.durable import locked, write_text
from coterie.runtime.errors import TrainingError
from coterie.training.config import RunConfig
from coterie.training.distillation import ANSWERS
from coterie.training.distillation import FOLDER as TEACHERS
from coterie.training.loop.checkpoint import CheckpointFolder
from coterie.training.loop.trainer import BEST, CHECKPOINTS
from coterie.training.run_data import RunData
from coterie.training.run_files import CONFIG, DATA, METRICS, TOKENIZER
from coterie.training.vectors import FILE as VECTORS
from coterie.training.yaml_config import dump_config

_SAYS = {CONFIG: "configuration", DATA: "data"}


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other trainings out of a folder.

    Raises:
        TrainingError: If there is one.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder, wait=False))
        except OSError as error:
            raise TrainingError(
                f"another training is at work in {folder}: wait for it, or choose another folder"
            ) from error
        yield


def claim(folder: Path, config: RunConfig, data: RunData, *, over_untrained: bool = False) -> None:
    """Make the folder this run's, or make sure that it is; one in which nothing was trained may be taken.

    Raises:
        TrainingError: If it is another run's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {CONFIG: dump_config(config), DATA: data.model_dump_json(indent=1)}
    others = [
        name
        for name, text in texts.items()
        if (folder / name).is_file() and (folder / name).read_text(encoding="utf-8", errors="replace") != text
    ]
    if others and not (over_untrained and _is_untrained(folder)):
        raise TrainingError(
            f"{folder} holds a run of another {_SAYS[others[0]]} ({others[0]} differs): "
            "choose another folder, or delete it"
        )
    if others:
        for name in (TOKENIZER, VECTORS):
            (folder / name).unlink(missing_ok=True)
    for name, text in texts.items():
        if name in others or not (folder / name).is_file():
            write_text(folder / name, text)


def _is_untrained(folder: Path) -> bool:
    """Return whether a folder is a run's, and holds nothing that it took a training to make."""
    if any((folder / name).exists() for name in (BEST, METRICS, TEACHERS, ANSWERS)):
        return False
    try:
        # What is not a run's is somebody's own, and stays as it is.
        RunData.model_validate_json((folder / DATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return CheckpointFolder(folder / CHECKPOINTS).latest() is None
