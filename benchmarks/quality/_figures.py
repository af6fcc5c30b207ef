"""Pictures of the study's tables, PNG files in docs/images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from benchmarks.quality._design import ROOT
from benchmarks.quality._sharing import affinity
from coterie.training.report._figure import INK, LINE, PLUS, SOFT, entitle, name_rows, new_figure, save, tidy

FOLDER = ROOT / "docs" / "images"
_COLOURS = (PLUS, "#b3400f", "#2f7d4f", "#7a4fa3", "#8a6d1f", SOFT)


def draw(found: dict[str, Any], plans: dict[str, Any], folder: Path = FOLDER) -> list[Path]:
    """Draw what there is.

    Args:
        found: The summary of all studies.
        plans: Of each study the plan of its own system with seed 0, under its last protocol that has one.
        folder: Where the pictures go.
    """
    made = []
    for name, study in found["studies"].items():
        made += _by_task(study, folder / f"quality-{name}-tasks.png")
        made += _costs(study, folder / f"quality-{name}-costs.png")
        made += _sweep(study, folder / f"quality-{name}-sweep.png")
        made += _who_shares(plans.get(name), folder / f"quality-{name}-sharing.png")
    return made


def _rows(protocol: dict[str, Any], part: str = "systems") -> list[dict[str, Any]]:
    return [row for row in protocol["rows"] if row["part"] == part]


def _by_task(study: dict[str, Any], path: Path) -> list[Path]:
    """Every task's score in the systems that a claim rests on, a row a task."""
    protocol, split = next(iter(study["protocols"].values())), study["splits"][0]
    shown = [row for row in _rows(protocol) if row["system"] in study["shown"]]
    if len(shown) < 2:
        return []
    tasks = list(shown[0]["by_task"][split])
    order = sorted(tasks, key=lambda task: shown[0]["by_task"][split][task])
    figure = new_figure(8, max(2.0, 0.27 * len(tasks) + 0.9))
    axes = figure.subplots()
    for row, colour in zip(shown, _COLOURS, strict=False):
        values = [row["by_task"][split][task] for task in order]
        axes.plot(values, range(len(order)), "o", color=colour, markersize=5, label=row["title"])
    name_rows(axes, order)
    axes.set_xlabel(f"{split}, %")
    entitle(axes, f"{study['title']}: each task")
    tidy(axes)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return [save(figure, path)]


def _costs(study: dict[str, Any], path: Path) -> list[Path]:
    """The mean score against what a task computes for an input, a panel a protocol."""
    split = study["splits"][0]
    panels = {
        name: [row for row in _rows(protocol) if row["costs"] and row["costs"]["operations_an_input"]]
        for name, protocol in study["protocols"].items()
    }
    panels = {name: rows for name, rows in panels.items() if len(rows) > 2}
    if not panels:
        return []
    figure = new_figure(5.2 * len(panels), 3.8)
    for axes, (name, rows) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for row in rows:
            score = row["scores"][split][study["groups"][0]]
            cost = row["costs"]["operations_an_input"] / 1e6
            own = row["system"] == study["ours"]
            axes.errorbar(
                cost, score["mean"], yerr=score["deviation"] or 0, fmt="o", color=PLUS if own else SOFT
            )
            axes.annotate(
                row["title"],
                (cost, score["mean"]),
                xytext=(5, 4),
                textcoords="offset points",
                fontsize=7,
                color=INK,
            )
        axes.set_xscale("log")
        axes.margins(x=0.35, y=0.15)
        axes.set_xlabel("operations an input and task, millions")
        axes.set_ylabel(f"{split}, %")
        entitle(axes, study["protocols"][name]["title"])
        tidy(axes)
    return [save(figure, path)]


def _sweep(study: dict[str, Any], path: Path) -> list[Path]:
    """Dev against the bytes of all blocks that are kept: what K and lambda buy."""
    protocol = next(iter(study["protocols"].values()))
    rows = [row for row in protocol["rows"] if row["part"] == "sweeps" and row["costs"]]
    if len(rows) < 3:
        return []
    figure = new_figure(6.4, 3.8)
    axes = figure.subplots()
    points = []
    for row in rows:
        point = (row["costs"]["parameters_kept"] * 4 / 1e6, row["scores"]["dev"][study["groups"][0]]["mean"])
        points.append(point)
        axes.plot(*point, "o", color=SOFT)
        axes.annotate(row["title"], point, xytext=(4, 3), textcoords="offset points", fontsize=7, color=INK)
    axes.plot(*zip(*_front(points), strict=True), drawstyle="steps-post", color=PLUS, linewidth=1)
    axes.set_xlabel("weights of all tasks, MB")
    axes.set_ylabel("dev, %")
    entitle(axes, f"{study['title']}: what is given for bytes")
    tidy(axes)
    return [save(figure, path)]


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other beats in both, by cost."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def _who_shares(plan: Any, path: Path) -> list[Path]:
    """Each gated layer's probabilities, and how alike the tasks' mixtures are; tasks in the same order."""
    gated = [stage for stage in (plan or {}).get("stages", []) if stage["kind"] == "gated"]
    if not gated or not gated[0].get("probabilities"):
        return []
    stage, tasks = gated[0], plan["tasks"]
    alike = affinity(stage)
    order = _alike_side_by_side(alike)
    figure = new_figure(9.5, max(2.4, 0.24 * len(tasks) + 1.2))
    left, right = figure.subplots(1, 2, width_ratios=[1, 2])
    left.imshow(np.array(stage["probabilities"])[order], cmap="Blues", vmin=0, vmax=1, aspect="auto")
    name_rows(left, [tasks[at] for at in order])
    left.set_xlabel("expert")
    entitle(left, f"{stage['name']}: gate probabilities")
    right.imshow(alike[np.ix_(order, order)], cmap="Blues", vmin=0, vmax=1, aspect="auto")
    name_rows(right, [tasks[at] for at in order])
    right.set_xticks([])
    entitle(right, "how alike two tasks' mixtures are")
    for axes in (left, right):
        for side in axes.spines.values():
            side.set_color(LINE)
    return [save(figure, path)]


def _alike_side_by_side(alike: Any) -> list[int]:
    distances = np.clip(1 - alike, 0, None)
    np.fill_diagonal(distances, 0)
    tree = hierarchy.linkage(squareform(distances, checks=False), "average", optimal_ordering=True)
    return [int(leaf) for leaf in hierarchy.leaves_list(tree)]
