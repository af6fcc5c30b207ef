"""The tables of ``coterie top``."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coterie.runtime.serving.observing._scrape import Window

_BLOCKS = 10
_MB = 1e6
_REFUSED = ("overloaded", "unavailable", "late")
"""Outcomes of requests that were right, and came at a bad time."""


def render(window: Window, *, rows: int) -> RenderableType:
    """Return what went on in a window, with the ``rows`` busiest tasks."""
    return Group(_server(window), _tasks(window, rows), _blocks(window))


def _server(window: Window) -> RenderableType:
    after = window.after
    memory = [value for _, value in after.find("coterie_resident_bytes")]
    held = [
        f"{own['bundle']} v{own['version']} {own['state']}"
        for own, _ in sorted(after.find("coterie_bundle_info"), key=lambda each: each[0]["state"] != "served")
    ]
    parts = [
        f"{after.total('coterie_workers'):.0f} workers",
        f"{sum(memory) / _MB:,.0f} MB" if memory else "memory unknown",
        f"{window.rate('coterie_requests_total'):,.1f} requests/s",
        f"{window.rate('coterie_run_seconds_count'):,.1f} runs/s",
        f"{after.total('coterie_waiting_requests'):.0f} waiting",
    ]
    return Text(" · ".join(parts) + "\n" + " · ".join(dict.fromkeys(held)), style="bold")


def _tasks(window: Window, rows: int) -> RenderableType:
    table = Table("task", box=None)
    numbers = (
        "req/s",
        "rows/s",
        "batch",
        "queue p50",
        "p99",
        "run p50",
        "p99",
        "refused/s",
        "other errors/s",
    )
    for name in numbers:
        table.add_column(name, justify="right")
    names = window.after.names_of("coterie_requests_total", "model")
    names += [name for name in window.after.names_of("coterie_task_rows_total", "task") if name not in names]
    busy = sorted(names, key=lambda name: (-_requests(window, name), -_rows(window, name), name))
    for name in busy[:rows]:
        table.add_row(name, *_numbers(window, name))
    if len(busy) > 1:
        table.add_row("all", *_numbers(window, None), style="bold")
    if len(busy) > rows:
        table.caption = f"{len(busy) - rows} more; --rows shows them"
    return table


def _numbers(window: Window, name: str | None) -> list[str]:
    labels = {} if name is None else {"model": name}
    answered = window.count("coterie_queue_seconds_count", **labels)
    met = window.count("coterie_met_rows_total", **labels)
    asked = window.rate("coterie_requests_total", **labels)
    well = window.rate("coterie_requests_total", outcome="ok", **labels)
    refused = sum(window.rate("coterie_requests_total", outcome=each, **labels) for each in _REFUSED)
    return [
        f"{asked:,.1f}",
        f"{_rows(window, name):,.1f}",
        f"{met / answered:.1f}" if answered else "-",
        *(
            _milliseconds(window.quantile(f"coterie_{part}_seconds", share, **labels))
            for part in ("queue", "compute")
            for share in (0.5, 0.99)
        ),
        f"{refused:,.1f}",
        f"{max(0.0, asked - well - refused):,.1f}",
    ]


def _requests(window: Window, name: str) -> float:
    return window.rate("coterie_requests_total", model=name)


def _rows(window: Window, name: str | None) -> float:
    """Return the rows a second of a task, also of those that the router was asked about."""
    if name is None:
        return window.rate("coterie_task_rows_total")
    own = window.rate("coterie_task_rows_total", task=name)
    return own or window.rate("coterie_questions_total", model=name)


def _blocks(window: Window) -> RenderableType:
    runs = window.rate("coterie_run_seconds_count")
    found = [
        (name, window.rate("coterie_block_runs_total", block=name))
        for name in window.after.names_of("coterie_block_runs_total", "block")
    ]
    table = Table("block", box=None)
    for name in ("runs/s", "of all runs", "rows/s"):
        table.add_column(name, justify="right")
    for name, rate in sorted(found, key=lambda each: (-each[1], each[0]))[:_BLOCKS]:
        share = f"{100 * rate / runs:.0f} %" if runs else "-"
        rows = window.rate("coterie_block_rows_total", block=name)
        table.add_row(name, f"{rate:,.1f}", share, f"{rows:,.1f}")
    return table


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.2f}"
