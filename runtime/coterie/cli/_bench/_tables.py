"""The findings as tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coterie.cli._bench._engine import ENGINE, GROUPED, ONE_BY_ONE, Case
from coterie.cli._bench._findings import Findings
from coterie.cli._machine import in_words
from coterie.cli._render import size


def show(found: Findings, console: Console) -> None:
    """Print the tables."""
    console.print(
        f"[bold]{escape(found.name)}[/]: {found.tasks} tasks, {found.precision}; {found.inputs} inputs, "
        f"{found.threads} thread{'s' if found.threads > 1 else ''} a run",
        highlight=False,
    )
    for table in (_sizes(found), _memory(found), times_table(found.cases), *_server(found)):
        console.print()
        console.print(table, highlight=False)
    console.print()
    console.print(f"measured on {in_words()}", highlight=False)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for at, column in enumerate(columns):
        table.add_column(column, justify="right" if at else "left", no_wrap=not at)
    return table


def size_rows(found: Findings) -> Iterator[tuple[str, int, float]]:
    """Yield what was compared, its bytes, and how many times those of the bundle it is."""
    sizes, count = found.sizes, found.tasks
    for what, number in (
        ("the bundle: every task, and the router", sizes.bundle),
        ("  of which weights, held once", sizes.weights),
        (f"{count} standalone files", sizes.standalone),
        (f"weights of {count} single-task models of the same blocks", sizes.single_task),
        ("weights of one dense mixture of all trained blocks", sizes.dense),
    ):
        if number is not None:
            yield what, number, number / sizes.bundle


def memory_rows(found: Findings) -> Iterator[tuple[str, str, str, str]]:
    """Yield each way of holding the tasks: tasks that were asked, bytes for all of them, the first answer."""
    for way, resident in found.memory.items():
        whole = "not told by this system" if resident.for_all is None else size(resident.for_all)
        if resident.tasks < found.tasks and resident.for_all is not None:
            whole = f"about {whole}"
        yield way, str(resident.tasks), whole, f"{resident.first_answer_s:.2f} s"


def time_row(case: Case) -> tuple[str, str, str, str, str, str]:
    """Return what was asked, the engine's time and rate, the sessions' time, and how many times faster."""

    def ratio(way: str) -> str:
        found = case.ratio(way)
        return "" if found is None else f"{found:.2f} x"

    own, other = case.times[ENGINE], case.times[ONE_BY_ONE]
    return (
        case.name,
        _milliseconds(own.median_ms),
        f"{case.per_second(ENGINE):,.0f}",
        _milliseconds(other.median_ms),
        ratio(ONE_BY_ONE),
        ratio(GROUPED),
    )


def _milliseconds(time: float) -> str:
    """Return a time with about four digits, so that a terminal of 80 columns has room for the table."""
    return f"{time:,.{3 if time < 10 else 2 if time < 100 else 1 if time < 1000 else 0}f} ms"


def _sizes(found: Findings) -> Table:
    table = _table("Bytes on disk", "what", "bytes", "against the bundle")
    for what, number, share in size_rows(found):
        table.add_row(what, size(number), f"{share:.2f}")
    return table


def _memory(found: Findings) -> Table:
    table = _table(
        "Resident memory (PSS) beyond the interpreter", "way", "tasks asked", "for all tasks", "first answer"
    )
    for row in memory_rows(found):
        table.add_row(*row)
    return table


def times_table(cases: Sequence[Case]) -> Table:
    """Return each case's row."""
    table = _table(
        "In one process: median times, taking turns",
        "asked",
        "coterie",
        "answers a second",
        "a session a task",
        "faster",
        "than grouped",
    )
    for case in cases:
        table.add_row(*time_row(case))
    return table


def _server(found: Findings) -> Iterator[Table]:
    if found.server_start_s is None:
        return
    table = _table(
        f"A server with one worker, ready in {found.server_start_s:.1f} s: single questions, mixed tasks",
        "transport",
        "at a time",
        "answers/s",
        "median",
        "p99",
        "client's core",
    )
    for each in found.served:
        failed = f" ({each.failures} failed)" if each.failures else ""
        table.add_row(
            each.transport,
            str(each.clients),
            f"{each.per_second:,.0f}{failed}",
            f"{each.median_ms:.2f} ms",
            f"{each.p99_ms:.2f} ms",
            f"{each.client_cpu:.0%}",
        )
    yield table
