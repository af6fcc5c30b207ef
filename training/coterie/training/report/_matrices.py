"""Who uses which experts, and which tasks are alike in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import leaves_list, linkage

from coterie.runtime.plan import StagePlan
from coterie.training.report._facts import Facts
from coterie.training.report._figure import (
    MOST_NAMES,
    SOFT,
    entitle,
    height_for,
    name_rows,
    new_figure,
    save,
)

_MOST_TICKS = 40


def task_correlation(rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the correlation between tasks of their gate probabilities, ``[N, M] -> [N, N]`` (figure 3)."""
    centred = rows.astype(np.float64) - rows.mean(axis=1, keepdims=True)
    norm = np.maximum(np.linalg.norm(centred, axis=1), 1e-12)
    return np.asarray((centred @ centred.T) / np.outer(norm, norm))


def alike(rows: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return an order of rows ``[N, M]`` that puts those beside each other that are alike, ``[N]``."""
    if len(rows) < 3:
        return np.arange(len(rows))
    return np.asarray(leaves_list(linkage(rows.astype(np.float64), "average")), dtype=np.int64)


def draw_gates(facts: Facts, stage: StagePlan, path: Path) -> Path:
    """Draw p(t), with the experts that each task keeps."""
    rows = np.array(stage.gate_probabilities)
    order = alike(rows)
    count = rows.shape[1]
    figure = new_figure(max(4.6, 0.28 * count + 2.6), height_for(len(rows)) + 0.9)
    axes = figure.subplots()
    image = axes.imshow(rows[order], aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    kept_note = ""
    if len(rows) <= MOST_NAMES:
        place = np.argsort(order)
        kept = [
            (stage.blocks[block].source, place[task])
            for task, used in enumerate(stage.uses)
            for block in used
        ]
        columns, lines = zip(*kept, strict=True)
        axes.scatter(
            columns, lines, marker="o", s=14, facecolors="#b3400f", edgecolors="white", linewidths=0.8
        )
        kept_note = " (dots: those kept)"
    name_rows(axes, [facts.names[task] for task in order])
    step = -(-count // _MOST_TICKS)
    axes.set_xticks(range(0, count, step), map(str, range(0, count, step)), fontsize=8)
    axes.set_xlabel(f"expert{kept_note}", fontsize=9, color=SOFT)
    axes.tick_params(colors=SOFT, length=0)
    entitle(axes, f"{stage.name}: probability of each expert")
    _bar(figure.colorbar(image))
    return save(figure, path)


def draw_correlation(facts: Facts, stage: StagePlan, path: Path) -> Path | None:
    """Draw how alike the tasks are in their gates."""
    rows = np.array(stage.gate_probabilities)
    if len(rows) < 2 or rows.shape[1] < 2:
        return None
    order = alike(rows)
    side = max(3.2, height_for(len(rows)))
    figure = new_figure(side + 2.6, side + 2.0 if len(rows) <= MOST_NAMES else side)
    axes = figure.subplots()
    image = axes.imshow(
        task_correlation(rows[order]), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest"
    )
    name_rows(axes, [facts.names[task] for task in order], both=True)
    axes.tick_params(colors=SOFT, length=0)
    entitle(axes, f"{stage.name}: correlation of tasks' gates")
    _bar(figure.colorbar(image, shrink=0.8))
    return save(figure, path)


def _bar(bar: Any) -> None:
    bar.ax.tick_params(labelsize=8, colors=SOFT)
    bar.outline.set_visible(False)
