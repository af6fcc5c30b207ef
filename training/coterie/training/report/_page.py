"""``report.html``: one page that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from coterie.runtime.durable import write_text
from coterie.runtime.plan import StagePlan
from coterie.training.report._curves import draw_density, draw_training, draw_transfer
from coterie.training.report._facts import Facts, read_facts
from coterie.training.report._groups import draw_assignments, draw_tree
from coterie.training.report._matrices import draw_correlation, draw_gates
from coterie.training.run_files import PLOTS, REPORT

_PACKAGES = ("coterie", "torch", "numpy", "scikit-learn")
_MOST_ROWS = 200


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        section: Where it stands: ``sharing`` or ``training`` or ``tasks``.
        title: What it shows.
        file: Where it is.
    """

    section: str
    title: str
    file: Path

    @property
    def source(self) -> str:
        """The picture itself, as the page holds it."""
        return "data:image/png;base64," + base64.b64encode(self.file.read_bytes()).decode("ascii")


def html_environment() -> jinja2.Environment:
    """Return what renders coterie's reports: everything is escaped; ``style`` is their common style sheet."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.globals["style"] = (
        files("coterie.training.report").joinpath("style.css").read_text(encoding="utf-8")
    )
    environment.filters["number"] = "{:,}".format
    return environment


def write_report(folder: Path, *, baseline: Path | None = None) -> Path:
    """Draw a finished run's plots and write its ``report.html``; return that.

    Args:
        folder: The run folder.
        baseline: Another finished run folder, such as one of single-task models, to compare each task with.

    Raises:
        CheckpointError: If one of them is not a finished run.
    """
    facts = read_facts(folder, baseline)
    plots = folder / PLOTS
    plots.mkdir(exist_ok=True)
    template = files("coterie.training.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    rows = _rows(facts)
    page = (
        html_environment()
        .from_string(template)
        .render(
            facts=facts,
            baseline=None if baseline is None else baseline.name,
            means=[(split, facts.mean(split)) for split in facts.splits],
            pictures=list(_draw(facts, plots)),
            rows=rows[:_MOST_ROWS],
            left_out=len(rows[_MOST_ROWS:]),
            worse=[task.name for task in facts.tasks if facts.worse(task)],
            stages=[stage_row(stage) for stage in facts.plan.stages],
            versions=[(package, version(package)) for package in _PACKAGES],
        )
    )
    target = folder / REPORT
    write_text(target, page)
    return target


def stage_row(stage: StagePlan) -> dict[str, object]:
    """Return what a report's table says of a stage."""
    density, users = stage.density(), stage.users().values()
    return {
        "name": stage.name,
        "kind": stage.kind,
        "trained": stage.trained_blocks,
        "kept": len(stage.blocks),
        "density": f"{density.mean():.2f}",
        "density_range": f"{density.min()} to {density.max()}" if density.min() < density.max() else "",
        "users": f"{min(users)} to {max(users)}" if min(users) < max(users) else str(max(users)),
        "parameters": sum(block.parameters for block in stage.blocks),
    }


def _draw(facts: Facts, plots: Path) -> Iterator[Picture]:
    """Draw all that there is something to draw for."""
    clustered = dict.fromkeys(name for record in facts.records for name in record.get("assignments", {}))
    wanted: list[tuple[str, str, Path | None]] = [
        (
            "sharing",
            "Clusters, from the most general layer to the most specific",
            draw_tree(facts, plots / "clusters.png"),
        )
    ]
    for stage in facts.gates():
        wanted += [
            (
                "sharing",
                f"Gates of {stage.name}",
                draw_gates(facts, stage, plots / f"gates-{stage.name}.png"),
            ),
            (
                "sharing",
                f"Correlation of tasks in {stage.name}",
                draw_correlation(facts, stage, plots / f"correlation-{stage.name}.png"),
            ),
        ]
    for name in clustered:
        picture = draw_assignments(facts, name, plots / f"assignments-{name}.png")
        wanted.append(("sharing", f"Clusters of {name} over epochs", picture))
    wanted += [
        ("training", "Losses and metrics", draw_training(facts, plots / "training.png")),
        ("training", "Density against accuracy", draw_density(facts, plots / "density.png")),
    ]
    if facts.baseline is not None:
        split = facts.splits[-1] if "test" not in facts.splits else "test"
        wanted.append(
            ("tasks", "Difference from the baseline", draw_transfer(facts, split, plots / "transfer.png"))
        )
    for section, title, file in wanted:
        if file is not None:
            yield Picture(section, title, file)


def _rows(facts: Facts) -> list[dict[str, Any]]:
    """Return a row for each task; with a baseline those come first that lost most, else the lowest."""
    rows: list[dict[str, Any]] = [
        {
            "name": task.name,
            "metric": task.metric,
            "scores": [(facts.score(split, task), facts.difference(split, task)) for split in facts.splits],
            "worse": facts.worse(task),
        }
        for task in facts.tasks
    ]
    return sorted(rows, key=lambda row: _rank(row["scores"], compared=facts.baseline is not None))


def _rank(scores: Sequence[tuple[float | None, float | None]], *, compared: bool) -> float:
    score, difference = scores[-1]
    value = difference if compared else score
    return float("inf") if value is None else value
