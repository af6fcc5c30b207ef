"""Pictures of a run: who shares with whom, and since when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from coterie.training.history import read_history
from coterie.training.model import MultiTaskModel

_INCH_A_TASK = 0.22
_LONGEST_SIDE = 40.0
"""Inches; pictures of thousands of tasks would not fit in memory otherwise."""
_MOST_NAMES = 150
"""Tasks whose names can still be told apart beside a picture."""


def save_plots(folder: Path, model: MultiTaskModel) -> list[Path]:
    """Draw a run's plots into ``plots/``; return their paths."""
    plots = folder / "plots"
    plots.mkdir(exist_ok=True)
    names = [task.name for task in model.tasks]
    records = read_history(folder)
    saved = [_curves(records, plots / "training.png")]
    saved += [
        _assignments(records, stage.name, names, plots / f"assignments-{stage.name}.png")
        for stage in model.cluster_stages()
    ]
    for gated in model.gated_stages():
        probabilities, chosen = gated.probabilities().detach().numpy(), gated.selection().numpy()
        title = f"Correlation of {gated.name} gate probabilities"
        saved += [
            _gates(probabilities, chosen, names, plots / f"gates-{gated.name}.png"),
            _correlation(probabilities, names, title, plots / f"correlation-{gated.name}.png"),
        ]
    return [path for path in saved if path is not None]


def task_correlation(rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the correlation between tasks of their gate probabilities, ``[N, M] -> [N, N]`` (figure 3)."""
    centred = rows.astype(np.float64) - rows.mean(axis=1, keepdims=True)
    norm = np.maximum(np.linalg.norm(centred, axis=1), 1e-12)
    return np.asarray((centred @ centred.T) / np.outer(norm, norm))


def _figure(width: float, height: float) -> Figure:
    size = (min(width, _LONGEST_SIDE), min(height, _LONGEST_SIDE))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _name_tasks(axes: Axes, names: list[str], *, both: bool = False) -> None:
    if len(names) > _MOST_NAMES:
        axes.set_ylabel("task")
        return
    axes.set_yticks(range(len(names)), names, fontsize=7)
    if both:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)


def _curves(records: list[dict[str, Any]], path: Path) -> Path | None:
    if not records:
        return None
    figure = _figure(9, 3.2)
    left, right = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in records]
    left.plot(epochs, [record["train"]["loss"] for record in records], label="train")
    if all("dev" in record for record in records):
        left.plot(epochs, [record["dev"]["loss"] for record in records], label="dev")
        right.plot(epochs, [record["dev"]["metric"] for record in records], label="dev, mean over tasks")
        right.legend()
    left.set(xlabel="epoch", ylabel="loss of a question")
    right.set(xlabel="epoch", ylabel="metric")
    left.legend()
    return _save(figure, path)


def _assignments(records: list[dict[str, Any]], stage: str, names: list[str], path: Path) -> Path | None:
    seen = [
        (record["epoch"], record["assignments"][stage])
        for record in records
        if stage in record["assignments"]
    ]
    if not seen:
        return None
    labels = np.array([labels for _, labels in seen]).T
    figure = _figure(max(5.0, 0.25 * len(seen) + 3), max(2.5, _INCH_A_TASK * len(names) + 1.2))
    axes = figure.subplots()
    first, last = seen[0][0], seen[-1][0]
    extent = (first - 0.5, last + 0.5, len(names) - 0.5, -0.5)
    # More clusters than colours share them.
    axes.imshow(
        labels % 20, aspect="auto", cmap="tab20", interpolation="nearest", extent=extent, vmin=0, vmax=19
    )
    _name_tasks(axes, names)
    axes.set(xlabel="epoch", title=f"Clusters of {stage}: one colour a cluster")
    return _save(figure, path)


def _gates(probabilities: npt.NDArray[Any], chosen: npt.NDArray[Any], names: list[str], path: Path) -> Path:
    figure = _figure(max(4.0, 0.35 * probabilities.shape[1] + 3), max(2.5, _INCH_A_TASK * len(names) + 1.2))
    axes = figure.subplots()
    image = axes.imshow(probabilities, aspect="auto", cmap="viridis", vmin=0, vmax=1)
    rows, columns = np.nonzero(chosen)
    axes.scatter(columns, rows, marker="s", s=10, facecolors="none", edgecolors="white", linewidths=0.8)
    _name_tasks(axes, names)
    axes.set(xlabel="expert", title="p(t); squares are the experts kept")
    figure.colorbar(image)
    return _save(figure, path)


def _correlation(rows: npt.NDArray[Any], names: list[str], title: str, path: Path) -> Path:
    side = max(4.0, _INCH_A_TASK * len(names) + 2)
    figure = _figure(side + 0.6, side)
    axes = figure.subplots()
    image = axes.imshow(task_correlation(rows), cmap="RdBu_r", vmin=-1, vmax=1)
    _name_tasks(axes, names, both=True)
    axes.set_title(title)
    figure.colorbar(image)
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=110 if max(figure.get_size_inches()) < _LONGEST_SIDE / 2 else 72)
    return path
