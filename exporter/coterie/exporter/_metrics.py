"""A bundle's metrics, measured through its router, must be those of the torch model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from coterie.exporter._verify import Checked, GraphSession, Reference
from coterie.runtime.errors import ParityError
from coterie.runtime.manifest import Manifest
from coterie.training.several import Tensors, apply

Scores = Mapping[str, Mapping[str, float]]
"""Task name to metric name to value."""

_DIGITS = 5e-5
"""Metrics that differ by less are equal to four digits; of those above 1, relative to them."""


@dataclass(frozen=True)
class Measured:
    """What a bundle scored.

    Attributes:
        split: Of the data, the part it was asked about.
        scores: What it scored.
        difference: The largest difference of a metric from torch's; below 5e-5, but for ties.
    """

    split: str
    scores: Scores
    difference: float


@dataclass(frozen=True)
class Measuring:
    """How to measure.

    Attributes:
        split: Name of the split.
        score: Scores any model on it.
        known: What the torch model scored on it when it had been trained.
    """

    split: str
    score: Callable[[Reference], Scores]
    known: Scores


def router_of(checked: Checked) -> Reference:
    """Return a bundle's router as a model of tensors."""
    session = GraphSession(checked.folder, checked.router)

    def answer(inputs: Tensors, row: Tensor, task: Tensor) -> Tensor:
        given = checked.feeds(apply(Tensor.numpy, inputs))
        feeds = {**given, "row": row.numpy(), "task": task.numpy()}
        return torch.from_numpy(session.run(feeds)["scores"])

    return answer


def compare_metrics(
    checked: Checked, reference: Reference, measuring: Measuring, *, tolerance: float, exact: bool
) -> Measured:
    """Measure the router, and compare with what torch scored.

    Two classes whose scores are equal but for rounding may change places, and a metric with them. So metrics
    that differ are a mistake only if a score does: then both models are asked everything again, side by side.

    Args:
        checked: The bundle's files.
        reference: The torch model.
        measuring: How to measure.
        tolerance: Largest difference of a score, relative to the score where that is above 1.
        exact: Whether a difference is a mistake; not so in less than fp32.

    Raises:
        ParityError: If a task's metric differs in its first four digits, because a score does.
    """
    router = router_of(checked)
    scores = measuring.score(router)
    task, difference = _largest(scores, measuring.known)
    if exact and difference > _DIGITS:
        against = f"task {task!r} scores otherwise on the {measuring.split} split, by {difference:.3g}"
        measuring.score(_side_by_side(router, reference, tolerance, against))
    return Measured(measuring.split, scores, float(f"{difference:.2g}"))


def with_measured(manifest: Manifest, measured: Measured) -> Manifest:
    """Return a manifest that says what the bundle scored."""
    entries = []
    for entry in manifest.tasks:
        scores = measured.scores.get(entry.task.name, {})
        finite = {metric: value for metric, value in scores.items() if math.isfinite(value)}
        entries.append(entry.model_copy(update={"measured": {measured.split: finite}}))
    parity = manifest.parity.model_copy(update={"metrics": measured.difference})
    return manifest.model_copy(update={"tasks": tuple(entries), "parity": parity})


def _largest(scores: Scores, known: Scores) -> tuple[str, float]:
    """Return the task whose metric differs most, and by how much; a metric that one has not differs by 1."""
    worst = ("", 0.0)
    for task in {**scores, **known}:
        mine, other = scores.get(task, {}), known.get(task, {})
        for name in {**mine, **other}:
            if name not in mine or name not in other:
                difference = 1.0
            elif math.isnan(mine[name]) and math.isnan(other[name]):
                difference = 0.0
            else:
                difference = abs(mine[name] - other[name]) / max(1.0, abs(other[name]))
            worst = max(worst, (task, difference), key=lambda item: item[1])
    return worst


def _side_by_side(router: Reference, reference: Reference, tolerance: float, against: str) -> Reference:
    def answer(inputs: Tensors, row: Tensor, task: Tensor) -> Tensor:
        got = router(inputs, row, task)
        with torch.no_grad():
            wanted = reference(inputs, row, task).detach().cpu()
        error = np.abs(got.numpy() - wanted.numpy()) / np.maximum(1.0, np.abs(wanted.numpy()))
        if error.size and not error.max() <= tolerance:
            raise ParityError(
                f"{against}: a score of the router differs from the torch model by {error.max():.3g}, more "
                f"than the tolerance of {tolerance:g}; nothing was published"
            )
        return wanted

    return answer
