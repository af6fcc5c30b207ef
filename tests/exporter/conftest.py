"""Bundles exported once for all tests of the exporter: tracing is what takes the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from tests.exporter import models

from coterie.exporter import About, Checks, export
from coterie.runtime.manifest import Manifest, Provenance
from coterie.training.frozen import FrozenModel
from coterie.training.several import Arrays, apply, each, take


@dataclass
class Exported:
    """A model, its bundle and real inputs."""

    model: FrozenModel
    folder: Path
    manifest: Manifest
    samples: Arrays

    def graph(self, task: str) -> str:
        return next(entry.graph for entry in self.manifest.tasks if entry.task.name == task)

    def session(self, file: str, folder: Path | None = None) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        path = (folder or self.folder) / file
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def feeds(self, chosen: slice | np.ndarray = slice(None)) -> dict[str, np.ndarray]:
        """Some of the inputs, as the graphs take them."""
        names = [spec.name for spec in self.model.inputs]
        return dict(zip(names, each(take(self.samples, chosen)), strict=True))

    def wanted(self, row: np.ndarray, task: np.ndarray) -> np.ndarray:
        inputs = apply(torch.from_numpy, self.samples)
        return self.model(inputs, torch.from_numpy(row), torch.from_numpy(task)).numpy()


def publish(model: FrozenModel, folder: Path, **options: object) -> Manifest:
    """Export a model that is its own reference; the fields of About and Checks are options as others are."""
    provenance = Provenance(coterie="0", seed=1, config={"width": 12}, versions={"torch": "2"})
    about = {"provenance": provenance} | _taken(About, options)
    defaults = {"reference": model, "samples": models.samples(model)}
    checks = Checks(**_taken(Checks, options))
    return export(model, folder, about=About(**about), checks=checks, **{**defaults, **options})


def _taken(kind: type, options: dict[str, object]) -> dict[str, object]:
    """Take out what a class has fields for."""
    return {field.name: options.pop(field.name) for field in fields(kind) if field.name in options}


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Exported]]:
    """Return a function from a model's name to its bundle."""
    made: dict[str, Exported] = {}

    def get(name: str) -> Exported:
        if name not in made:
            model = models.MODELS[name]()
            folder = tmp_path_factory.mktemp(name) / "bundle"
            manifest = publish(model, folder, name=name)
            made[name] = Exported(model, folder, manifest, models.samples(model))
        return made[name]

    return get
