"""Who is in which cluster: over the epochs, and from the most general layer to the most specific one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline
from matplotlib.ticker import MaxNLocator

from coterie.training.report._facts import Facts
from coterie.training.report._figure import (
    INK,
    SOFT,
    entitle,
    height_for,
    name_rows,
    new_figure,
    save,
    shorten,
)

Ints = npt.NDArray[np.int64]

_MOST_LEAVES = 60
"""Tasks whose names stand at the tree's leaves; of more, only their numbers."""
_MOST_LABELS = 40
_BOX = 0.09


def draw_assignments(facts: Facts, stage: str, path: Path) -> Path | None:
    """Draw each task's cluster over the epochs; tasks that end together stand together."""
    seen = [
        (record["epoch"], record["assignments"][stage])
        for record in facts.records
        if stage in record.get("assignments", {})
    ]
    if not seen:
        return None
    labels = np.array([each for _, each in seen]).T
    order = np.lexsort(labels.T)
    figure = new_figure(max(5.0, min(0.22 * len(seen), 9.0) + 2.2), height_for(len(labels)) + 0.9)
    axes = figure.subplots()
    extent = (seen[0][0] - 0.5, seen[-1][0] + 0.5, len(labels) - 0.5, -0.5)
    # More clusters than colours share them.
    axes.imshow(
        labels[order] % 20,
        aspect="auto",
        cmap="tab20",
        interpolation="nearest",
        extent=extent,
        vmin=0,
        vmax=19,
    )
    name_rows(axes, [facts.names[task] for task in order])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch", fontsize=9, color=SOFT)
    axes.tick_params(colors=SOFT, length=0, labelsize=8)
    count = len(np.unique(labels[:, -1]))
    entitle(axes, f"{stage}: one colour a cluster, {count} in the end")
    return save(figure, path)


def draw_tree(facts: Facts, path: Path) -> Path | None:
    """Draw the clusters of all layers, with the tasks that flow from one to the next."""
    stages = facts.plan.groupings()
    if not stages:
        return None
    count = len(facts.tasks)
    columns = [np.zeros(count, dtype=np.int64), *(_ranked([s.assignment() for s in stages]))]
    gap = max(0.8, 0.03 * count)
    figure = new_figure(
        2.6 * len(columns) + 1.4, min(max(3.0, 0.22 * (count + gap * len(stages[-1].blocks))), 12.0)
    )
    axes = figure.subplots()
    names = count <= _MOST_LEAVES
    before: Ints = np.lexsort(tuple(reversed(columns)))
    tops: list[npt.NDArray[np.float64]] = []
    for index, labels in enumerate(columns):
        # Within a cluster the tasks stay in the order in which they arrive.
        arrival = np.argsort(before)
        before = np.lexsort((arrival, labels))
        tops.append(_tops(labels, before, gap))
        if index:
            _ribbons(
                axes,
                index,
                groups=(columns[index - 1], labels),
                tops=(tops[index - 1], tops[index]),
                colour=columns[1],
            )
    high, low = min(float(top.min()) for top in tops), max(float(top.max()) for top in tops) + 1
    for index, (labels, top) in enumerate(zip(columns, tops, strict=True)):
        axes.text(
            index + _BOX / 2,
            high - 0.02 * (low - high),
            f"{stages[index - 1].name}\n{len(np.unique(labels))} clusters" if index else "all tasks",
            ha="center",
            va="bottom",
            fontsize=9,
            color=INK,
            parse_math=False,
        )
        _boxes(axes, index, labels, top, numbers=index > 0)
    if names:
        for task in range(count):
            axes.text(
                len(columns) - 1 + _BOX + 0.04,
                tops[-1][task] + 0.5,
                shorten(facts.names[task]),
                va="center",
                fontsize=8,
                color=INK,
                parse_math=False,
            )
    axes.set_xlim(-0.3, len(columns) - 0.9 + (0.8 if names else 0.2))
    axes.set_ylim(low, high - 0.1 * (low - high))
    axes.axis("off")
    return save(figure, path)


def _ranked(assignments: Sequence[Any]) -> list[Ints]:
    """Number each layer's clusters by where their tasks stand in the layer before: few ribbons then cross."""
    ranked: list[Ints] = []
    place = np.zeros(len(assignments[0]))
    for labels in assignments:
        found, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
        middle = np.bincount(inverse, weights=place) / counts
        rank = np.empty(len(found), dtype=np.int64)
        # Where they stand alike, the larger cluster comes first.
        rank[np.lexsort((-counts, middle))] = np.arange(len(found))
        ranked.append(rank[inverse])
        place = np.argsort(np.argsort(rank[inverse] + place / (place.max() + 1), kind="stable")).astype(
            np.float64
        )
    return ranked


def _tops(labels: Ints, order: Ints, gap: float) -> npt.NDArray[np.float64]:
    """Return the upper edge of each task's slot, ``[N]``: a unit each, a gap between clusters; centred."""
    slots = np.empty(len(labels))
    slots[order] = np.arange(len(labels)) + gap * (labels[order] - labels.max() / 2)
    return slots


def _boxes(axes: Axes, column: int, labels: Ints, top: npt.NDArray[np.float64], *, numbers: bool) -> None:
    found = np.unique(labels)
    for label in found:
        mine = top[labels == label]
        axes.add_patch(
            Rectangle((column, mine.min()), _BOX, mine.max() - mine.min() + 1, facecolor=SOFT, linewidth=0)
        )
        if numbers and len(found) <= _MOST_LABELS:
            axes.text(
                column - 0.03,
                (mine.min() + mine.max() + 1) / 2,
                f"{len(mine):,}",
                ha="right",
                va="center",
                fontsize=8,
                color=SOFT,
            )


def _ribbons(
    axes: Axes,
    column: int,
    *,
    groups: tuple[Ints, Ints],
    tops: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    colour: Ints,
) -> None:
    """Draw a ribbon to a column for the tasks of each two clusters; the first layer's cluster colours it."""
    colors = colormaps["tab10" if colour.max() < 10 else "tab20"]
    (left, right), (from_top, to_top) = groups, tops
    start, end = column - 1 + _BOX, column
    middle = (start + end) / 2
    for key in Counter(zip(left.tolist(), right.tolist(), colour.tolist(), strict=True)):
        mine = (left == key[0]) & (right == key[1]) & (colour == key[2])
        upper, lower = from_top[mine].min(), from_top[mine].max() + 1
        there, below = to_top[mine].min(), to_top[mine].max() + 1
        points = [(start, upper), (middle, upper), (middle, there), (end, there)]
        points += [(end, below), (middle, below), (middle, lower), (start, lower), (start, upper)]
        curve = [Outline.CURVE4] * 3
        codes = [Outline.MOVETO, *curve, Outline.LINETO, *curve, Outline.CLOSEPOLY]
        color = colors(key[2] % colors.N)
        axes.add_patch(PathPatch(Outline(points, codes), facecolor=color, alpha=0.45, linewidth=0))
