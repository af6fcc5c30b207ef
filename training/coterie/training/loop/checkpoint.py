"""Checkpoints: all that a training needs to go on as if it had never stopped. safetensors and JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from coterie.runtime.durable import flush_folder, write_file, write_text
from coterie.runtime.errors import CheckpointError
from coterie.training.model import MultiTaskModel

_PREFIX = "epoch-"
_KEPT = 2


def save_weights(model: MultiTaskModel, path: Path) -> None:
    """Write a model's weights to one file, whole or not at all."""
    write_file(path, save({name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}))


def load_weights(model: MultiTaskModel, path: Path) -> None:
    """Read a model's weights; cluster layers that were frozen take their frozen form first.

    Raises:
        CheckpointError: If the file is missing, damaged or of another model.
    """
    restore_model(model, _read(path, "train the run again"))


def restore_model(model: MultiTaskModel, tensors: dict[str, Tensor]) -> None:
    """Put weights into a model; see ``load_weights``."""
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            "these weights are not of this model: its configuration or its data's tasks differ; "
            "use the run folder's own config.yaml and data"
        ) from error


class CheckpointFolder:
    """The checkpoints of one run: the newest two, each written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(
        self,
        epoch: int,
        model: MultiTaskModel,
        optimizer: torch.optim.Optimizer,
        others: dict[str, Tensor],
        progress: dict[str, Any],
    ) -> None:
        """Write the state after ``epoch`` epochs; ``others`` is what else is learned, by its own names."""
        beside = self.folder / f".{_PREFIX}{epoch:05d}"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        save_weights(model, beside / "model.safetensors")
        tensors, scalars = _optimizer_state(_named(model, others), optimizer)
        kept = {name: tensor.detach().contiguous().clone() for name, tensor in others.items()}
        write_file(beside / "state.safetensors", save(tensors | kept))
        text = json.dumps({"epoch": epoch, "optimizer": scalars, "progress": progress}, indent=1)
        write_text(beside / "state.json", text)
        destination = self.folder / f"{_PREFIX}{epoch:05d}"
        shutil.rmtree(destination, ignore_errors=True)
        beside.rename(destination)
        flush_folder(self.folder)
        for old in self._all()[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def latest(self) -> Path | None:
        """Return the newest whole checkpoint."""
        found = self._all()
        return found[-1] if found else None

    def restore(self, path: Path, model: MultiTaskModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Put a checkpoint's weights into the model; return its other tensors and its JSON.

        Raises:
            CheckpointError: If it is damaged or of another model.
        """
        advice = f"delete the folder {path.name} to resume from the checkpoint before it"
        restore_model(model, _read(path / "model.safetensors", advice))
        scalars = path / "state.json"
        try:
            state = json.loads(scalars.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(_damaged(scalars, advice)) from error
        return _read(path / "state.safetensors", advice), state

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob(f"{_PREFIX}*")) if self.folder.is_dir() else []


def restore_optimizer(
    model: MultiTaskModel,
    optimizer: torch.optim.Optimizer,
    others: dict[str, Tensor],
    tensors: dict[str, Tensor],
    scalars: dict[str, Any],
) -> None:
    """Put an optimiser's state back, parameter by parameter; ``others`` as in ``CheckpointFolder.save``."""
    for name, parameter in _named(model, others).items():
        state: dict[str, Any] = dict(scalars.get(name, {}))
        prefix = f"optimizer/{name}/"
        state |= {
            key[len(prefix) :]: tensor.to(parameter.device)
            for key, tensor in tensors.items()
            if key.startswith(prefix)
        }
        if state:
            optimizer.state[parameter] = state


def _named(model: MultiTaskModel, others: dict[str, Tensor]) -> dict[str, nn.Parameter]:
    learned = {name: each for name, each in others.items() if isinstance(each, nn.Parameter)}
    return dict(model.named_parameters()) | learned


def _optimizer_state(
    named: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for name, parameter in named.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{name}/{key}"] = value.contiguous().clone()
            else:
                scalars.setdefault(name, {})[key] = value
    return tensors, scalars


def _read(path: Path, advice: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(_damaged(path, advice)) from error


def _damaged(path: Path, advice: str) -> str:
    return f"{path} is missing or damaged: {advice}"
