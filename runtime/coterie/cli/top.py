"""``coterie top``."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from coterie.cli._extras import extra

EXAMPLES = (
    "Examples:\n\n"
    "$ coterie top\n\n"
    "$ coterie top http://models.internal:3000 --interval 5\n\n"
    "$ coterie top https://models.internal:3000 --ca team-ca.pem --cert me.pem --key me.key\n\n"
    "$ coterie top --once"
)


def top(  # noqa: PLR0917 - typer passes them by name
    url: Annotated[
        str, typer.Argument(help="The server's HTTP address.", metavar="[URL]")
    ] = "http://127.0.0.1:3000",
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two readings.")] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print what goes on in one interval, and end.")
    ] = False,
    rows: Annotated[int, typer.Option(min=1, help="Tasks that are shown, the busiest first.")] = 20,
    api_key: Annotated[
        str,
        typer.Option(
            help="A key that may read the metrics, if the server has keys.", envvar="COTERIE_API_KEY"
        ),
    ] = "",
    ca: Annotated[
        Path | None,
        typer.Option(help="Authority in PEM whose certificate the server shows, if it is not known."),
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(help="Certificate in PEM to show, if the server wants one.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="That certificate's private key in PEM.")] = None,
) -> None:
    """Show what a running server does: its tasks, its blocks, its versions and its memory.

    For each task the requests and rows a second, how many questions a request's run answers, the time in the
    queue and of the run in milliseconds, and what was refused. All of it is of the interval that is over, and
    comes from the server's /metrics. Ctrl-C ends it.
    """
    from rich.console import Console
    from rich.live import Live

    with extra("serve", "coterie top"):
        from coterie.cli._render_top import render
        from coterie.runtime.serving.observing._scrape import Shown, Window, scrape

    console = Console()
    read = partial(scrape, url, api_key=api_key, shown=Shown(ca, cert, key))
    before = read()
    if once:
        time.sleep(interval)
        console.print(render(Window(before, read()), rows=rows))
        return
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            after = read()
            live.update(render(Window(before, after), rows=rows), refresh=True)
            before = after
