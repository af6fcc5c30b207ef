"""How a training went: losses, metrics, density, and each task beside the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coterie.training.report._facts import Facts
from coterie.training.report._figure import (
    MINUS,
    MOST_NAMES,
    PLUS,
    SOFT,
    entitle,
    height_for,
    name_rows,
    new_figure,
    save,
    tidy,
)


def draw_training(facts: Facts, path: Path) -> Path | None:
    """Draw loss and dev metric over epochs; a band holds eight of ten tasks."""
    if not facts.records:
        return None
    figure = new_figure(9, 3)
    left, right = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in facts.records]
    left.plot(epochs, [record["train"]["loss"] for record in facts.records], color=PLUS, label="train")
    known = [record for record in facts.records if "dev" in record]
    if known:
        at = [record["epoch"] for record in known]
        left.plot(at, [record["dev"]["loss"] for record in known], color=MINUS, label="dev")
        right.plot(at, [record["dev"]["metric"] for record in known], color=PLUS, label="mean over tasks")
        spread = [_spread(facts, record["dev"]["tasks"]) for record in known]
        if all(spread) and len(facts.tasks) > 1:
            low, high = zip(*spread, strict=True)
            right.fill_between(at, low, high, color=PLUS, alpha=0.15, linewidth=0, label="eight of ten tasks")
    if facts.best is not None:
        for axes in (left, right):
            axes.axvline(facts.best, color=SOFT, linewidth=0.8, linestyle=":", label="epoch kept")
    left.set(xlabel="epoch")
    right.set(xlabel="epoch")
    entitle(left, "Loss of a question")
    entitle(right, "Metric on dev")
    for axes in (left, right):
        tidy(axes)
        axes.legend(fontsize=8, frameon=False)
    return save(figure, path)


def _spread(facts: Facts, tasks: Mapping[str, Mapping[str, float]]) -> tuple[float, float] | None:
    values = [
        tasks[task.name][task.metric] for task in facts.tasks if task.metric in tasks.get(task.name, {})
    ]
    return (float(np.quantile(values, 0.1)), float(np.quantile(values, 0.9))) if values else None


def densities(records: Sequence[Mapping[str, Any]]) -> list[tuple[int, float, float]]:
    """Return epoch, mean number of experts a task draws over all gated stages, and dev metric."""
    found = []
    for record in records:
        each = [stage["density"] for stage in record.get("stages", {}).values() if "density" in stage]
        if each and "dev" in record:
            found.append((record["epoch"], float(np.mean(each)), record["dev"]["metric"]))
    return found


def draw_density(facts: Facts, path: Path) -> Path | None:
    """Draw density against the dev metric, epoch by epoch."""
    points = densities(facts.records)
    if not points:
        return None
    figure = new_figure(5.6, 3.4)
    axes = figure.subplots()
    epochs, density, metric = (np.array(column) for column in zip(*points, strict=True))
    axes.plot(density, metric, color=SOFT, linewidth=0.6, alpha=0.6)
    dots = axes.scatter(density, metric, c=epochs, cmap="viridis", s=22, zorder=3)
    for index in dict.fromkeys((0, len(epochs) - 1)):
        axes.annotate(
            f"epoch {epochs[index]}",
            (density[index], metric[index]),
            textcoords="offset points",
            xytext=(6, -10),
            fontsize=8,
            color=SOFT,
        )
    kept = epochs == facts.best
    axes.scatter(
        density[kept], metric[kept], s=90, facecolors="none", edgecolors=MINUS, zorder=4, label="epoch kept"
    )
    axes.set(xlabel="density: experts that a task draws, mean", ylabel="metric on dev, mean over tasks")
    entitle(axes, "Density against accuracy")
    tidy(axes)
    if kept.any():
        axes.legend(fontsize=8, frameon=False)
    bar = figure.colorbar(dots)
    bar.set_label("epoch", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return save(figure, path)


def draw_transfer(facts: Facts, split: str, path: Path) -> Path | None:
    """Draw each task's difference from the baseline, the largest loss first."""
    found = [(task, facts.difference(split, task)) for task in facts.tasks]
    known = sorted(((value, task.name) for task, value in found if value is not None), reverse=True)
    if not known:
        return None
    values = np.array([value for value, _ in known])
    figure = new_figure(7, height_for(len(known)) + 0.9)
    axes = figure.subplots()
    colors = np.where(values < 0, MINUS, PLUS)
    axes.barh(range(len(known)), values, height=0.7 if len(known) <= MOST_NAMES else 1.0, color=colors)
    name_rows(axes, [name for _, name in known])
    axes.set_ylim(-0.6, len(known) - 0.4)
    axes.axvline(0, color=SOFT, linewidth=0.8)
    axes.set(xlabel=f"metric on {split}, difference from the baseline")
    if len(known) > MOST_NAMES:
        axes.set_ylabel(f"{len(known):,} tasks")
    entitle(axes, f"Transfer: {int((values > 0).sum())} tasks better, {int((values < 0).sum())} worse")
    tidy(axes)
    axes.grid(axis="y", visible=False)
    return save(figure, path)
