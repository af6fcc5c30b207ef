"""What all pictures have in common: sizes, fonts, and names that come from the user."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

MOST_NAMES = 120
"""Tasks whose names can still be told apart beside a picture."""

INK, SOFT, LINE, PLUS, MINUS = "#1b1f24", "#59636e", "#d1d9e0", "#0a5cad", "#b3400f"

_LONGEST_SIDE = 24.0
_INCH_A_TASK = 0.2
_INCH_FOR_ALL = 7.0
_LONGEST_NAME = 28
_DOTS = 110


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of so many inches, at most as large as fits in memory."""
    figure = Figure(figsize=(min(width, _LONGEST_SIDE), min(height, _LONGEST_SIDE)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def height_for(tasks: int) -> float:
    """Return the height of a picture with a row a task: each legible, or all of them on a page."""
    return max(1.2, _INCH_A_TASK * tasks) if tasks <= MOST_NAMES else _INCH_FOR_ALL


def shorten(name: str) -> str:
    """Return a name that fits beside a picture."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def name_rows(axes: Axes, names: Sequence[str], *, both: bool = False) -> None:
    """Write the tasks' names at the rows, and with ``both`` at the columns; of many, only their number."""
    if len(names) > MOST_NAMES:
        axes.set_yticks([])
        axes.set_ylabel(f"{len(names):,} tasks, those alike side by side", fontsize=9, color=SOFT)
        if both:
            axes.set_xticks([])
        return
    labels = [shorten(name) for name in names]
    # A dollar sign in a task's name is no formula.
    axes.set_yticks(range(len(names)), labels, fontsize=8, parse_math=False)
    if both:
        axes.set_xticks(range(len(names)), labels, fontsize=8, rotation=90, parse_math=False)


def entitle(axes: Axes, title: str) -> None:
    """Write the title above the left edge."""
    axes.set_title(title, fontsize=10, color=INK, loc="left", parse_math=False)


def tidy(axes: Axes) -> None:
    """Take away the frame, and make the rest of the drawing quiet."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)
    axes.tick_params(colors=SOFT, labelsize=8)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    axes.grid(color=LINE, linewidth=0.5)
    axes.set_axisbelow(True)


def save(figure: Figure, path: Path) -> Path:
    """Write a picture."""
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(path, dpi=_DOTS, facecolor="white")
    return path
