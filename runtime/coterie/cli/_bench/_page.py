"""The findings as one page that needs no other file: tables and plots."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from importlib.resources import files

from coterie.cli._bench._engine import ENGINE, GROUPED, ONE_BY_ONE, Case
from coterie.cli._bench._findings import Findings
from coterie.cli._bench._tables import memory_rows, size_rows, time_row
from coterie.cli._machine import in_words
from coterie.cli._render import size
from coterie.training.report import INK, MINUS, PLUS, SOFT, entitle, html_environment, new_figure, tidy

_COLOURS = {ENGINE: PLUS, ONE_BY_ONE: MINUS, GROUPED: SOFT}
_PLOTS = (
    ("batch", "questions", "Mixed questions a second, by batch size"),
    ("tasks", "tasks", "64 mixed questions: questions a second, by number of tasks"),
    ("fan-out", "tasks", "One input asked of many tasks: questions a second, by number of tasks"),
)


def render_page(found: Findings) -> str:
    """Return the page."""
    template = files("coterie.cli._bench").joinpath("page.html.j2").read_text(encoding="utf-8")
    return (
        html_environment()
        .from_string(template)
        .render(
            found=found,
            machine=in_words(),
            sizes=[(what, size(number), f"{share:.2f}") for what, number, share in size_rows(found)],
            memory=list(memory_rows(found)),
            times=[time_row(case) for case in found.cases],
            pictures=list(_pictures(found)),
        )
    )


def _pictures(found: Findings) -> Iterator[tuple[str, str]]:
    """Yield the title and the source of each plot."""
    for group, attribute, title in _PLOTS:
        cases = sorted(
            (case for case in found.cases if case.group == group), key=lambda case: _size(case, attribute)
        )
        if len(cases) > 1:
            yield title, _plot(cases, attribute, title)


def _size(case: Case, attribute: str) -> int:
    return case.questions if attribute == "questions" else case.tasks


def _plot(cases: Sequence[Case], attribute: str, title: str) -> str:
    figure = new_figure(7, 3)
    axes = figure.subplots()
    for way, colour in _COLOURS.items():
        known = [case for case in cases if way in case.times]
        if known:
            at = [_size(case, attribute) for case in known]
            axes.plot(at, [case.per_second(way) for case in known], color=colour, marker="o", label=way)
    axes.set(xscale="log", yscale="log", xlabel=attribute)
    ticks = [_size(case, attribute) for case in cases]
    axes.set_xticks(ticks, [str(tick) for tick in ticks], color=INK)
    axes.minorticks_off()
    entitle(axes, title)
    tidy(axes)
    axes.legend(fontsize=8, frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", facecolor="white")
    return "data:image/svg+xml;base64," + base64.b64encode(drawn.getvalue()).decode("ascii")
