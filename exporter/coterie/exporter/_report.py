"""``report.html``: what is in a bundle, who shares with whom, how it was checked; from the manifest alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from coterie.runtime.manifest import KindSizes, Manifest
from coterie.runtime.overview import MOST_OPEN, cluster_tree, kind_rows, kind_total
from coterie.runtime.plan import StagePlan
from coterie.training.report import html_environment, stage_row

_LARGEST_PAIR_MAP = 80
"""With more tasks, a map of all pairs of tasks would have cells too small to see."""

_MAP_WIDTH, _MAP_HEIGHT = 640, 1280
_SIZES = (
    ("weights", "This bundle's weights, held once"),
    ("fp32", "The same weights in fp32"),
    ("graphs", "This bundle's task graphs"),
    ("router", "This bundle's router graph"),
    ("standalone", "The same tasks as self-contained files"),
    ("dense", "Every block that was trained, before pruning"),
    ("cut_experts", "Left out: experts that no task uses"),
    ("cut_centroids", "Left out: tasks' own blocks, clustered, and centroids that no task uses"),
    ("cut_columns", "Left out: parts of columns that no task depends on"),
    ("cut_others", "Left out: other blocks that no task uses"),
    ("cut_equal", "Left out: tensors that equal another"),
)


@dataclass(frozen=True)
class Cell:
    """One filled square of a map."""

    row: int
    column: int
    value: float
    opacity: float
    title: str

    @property
    def sign(self) -> str:
        """The class that colours it."""
        return "plus" if self.value > 0 else "minus"


@dataclass(frozen=True)
class Map:
    """A matrix drawn as squares.

    Attributes:
        title: What it shows.
        rows: A label for each row.
        columns: A label for each column.
        cells: The squares that are not 0.
        side: Side of a square in pixels.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Cell]
    side: int


def render_report(manifest: Manifest) -> str:
    """Return the report as one self-contained HTML file; the same manifest gives the same bytes."""
    source = files("coterie.exporter").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = html_environment()
    environment.filters["bytes"] = _bytes
    environment.filters["percent"] = _percent
    order = _order(manifest)
    return environment.from_string(source).render(
        manifest=manifest,
        sizes=_size_rows(manifest),
        kinds=_kind_table(manifest),
        tree=cluster_tree(manifest.plan),
        layers=manifest.plan.groupings(),
        folded=len(manifest.plan.tasks) > MOST_OPEN,
        stages=[stage_row(stage) for stage in manifest.plan.stages],
        maps=[_stage_map(manifest, stage, order) for stage in manifest.plan.stages if _is_telling(stage)],
        pairs=_pair_map(manifest, order),
        metrics=_metric_table(manifest),
        precisions=_precisions(manifest),
        config=json.dumps(manifest.provenance.config, indent=2, sort_keys=True, ensure_ascii=False),
    )


def _precisions(manifest: Manifest) -> list[tuple[str, list[str]]]:
    """Return the names of the blocks that are stored in each precision, the most first."""
    found: dict[str, list[str]] = {}
    for name, stored in {} if manifest.precision is None else manifest.precision.blocks.items():
        found.setdefault(stored, []).append(name)
    return sorted(found.items(), key=lambda item: -len(item[1]))


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _size_rows(manifest: Manifest) -> list[tuple[str, int, float]]:
    """Return label, bytes and the share of the largest, for each size."""
    known = [(label, manifest.sizes[key]) for key, label in _SIZES if key in manifest.sizes]
    largest = max((size for _, size in known), default=1) or 1
    return [(label, size, size / largest) for label, size in known]


def _kind_table(manifest: Manifest) -> list[tuple[str, str, KindSizes, float]]:
    """Return blocks, stages, sizes and the share of the weights for each kind, and in the end for all."""
    rows = kind_rows(manifest)
    total = kind_total(rows)
    table = [(row.blocks, ", ".join(row.stages), row.sizes) for row in rows]
    table += [("All", "", total)] if rows else []
    return [(*row, row[2].kept / max(total.kept, 1)) for row in table]


def _is_telling(stage: StagePlan) -> bool:
    """Return whether a picture tells something: not where all share one block, nor where none share."""
    return len(stage.blocks) > 1 and (stage.mixes or len(stage.blocks) < len(stage.uses))


def _order(manifest: Manifest) -> list[int]:
    """Return the tasks in an order that puts those beside each other that use the same blocks."""
    stages = manifest.plan.stages[:-1]
    return sorted(range(len(manifest.plan.tasks)), key=lambda task: [stage.uses[task] for stage in stages])


def _stage_map(manifest: Manifest, stage: StagePlan, order: Sequence[int]) -> Map:
    matrix = stage.mixing_matrix()[order]
    tasks = [manifest.plan.tasks[task] for task in order]
    blocks = [str(block.source) for block in stage.blocks]
    return _draw(f"{stage.name} ({stage.kind})", matrix, tasks, blocks)


def _pair_map(manifest: Manifest, order: Sequence[int]) -> Map | None:
    """Return how many blocks each two tasks have in common, leaving out those that everybody uses."""
    count = len(manifest.plan.tasks)
    if not 1 < count <= _LARGEST_PAIR_MAP:
        return None
    common = np.zeros((count, count), dtype=np.float32)
    for stage in manifest.plan.stages:
        used = (stage.mixing_matrix() != 0).astype(np.float32)
        used = used[:, used.min(axis=0) == 0]
        common += used @ used.T
    tasks = [manifest.plan.tasks[task] for task in order]
    return _draw("blocks in common", common[np.ix_(order, order)], tasks, tasks)


def _draw(title: str, matrix: npt.NDArray[np.float32], rows: Sequence[str], columns: Sequence[str]) -> Map:
    largest = float(np.abs(matrix).max()) or 1.0
    cells = [
        Cell(
            row=int(row),
            column=int(column),
            value=float(matrix[row, column]),
            opacity=round(0.15 + 0.85 * abs(float(matrix[row, column])) / largest, 2),
            title=f"{rows[row]}, {columns[column]}: {matrix[row, column]:.3g}",
        )
        for row, column in zip(*np.nonzero(matrix), strict=True)
    ]
    side = min(18, max(4, min(_MAP_WIDTH // len(columns), _MAP_HEIGHT // len(rows))))
    return Map(title, rows, columns, cells, side)


def _metric_table(manifest: Manifest) -> dict[str, object]:
    """Return the columns ``split metric``, a row for each task, and the mean of each column."""
    columns = sorted(
        {
            (split, metric)
            for entry in manifest.tasks
            for split, values in entry.metrics.items()
            for metric in values
        }
    )
    rows = [
        (
            entry.task.name,
            entry.task.kind,
            [entry.metrics.get(split, {}).get(metric) for split, metric in columns],
        )
        for entry in manifest.tasks
    ]
    means = []
    for column in range(len(columns)):
        known = [values[column] for _, _, values in rows if values[column] is not None]
        means.append(float(np.mean(np.array(known, dtype=np.float64))))
    return {"columns": columns, "rows": rows, "means": means}
