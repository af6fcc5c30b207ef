"""``coterie bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coterie.cli._destination import check_file
from coterie.cli._extras import extra

EXAMPLES = (
    "Examples:\n\n"
    "$ coterie bench bundles/digits --quick\n\n"
    "$ coterie bench bundles/reviews --input texts.txt --html gains.html --json gains.json\n\n"
    "$ coterie bench bundles/assays --tasks 200 --threads 4 --no-server"
)


def bench(  # noqa: PLR0917 - typer passes them by name
    bundle: Annotated[Path, typer.Argument(help="The bundle to measure.")],
    input_: Annotated[
        str | None,
        typer.Option("--input", "-i", metavar="FILE", help="Ask about these, as coterie predict reads them."),
    ] = None,
    tasks: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tasks that are asked; each also gets an ordinary session, with weights of its own.",
            show_default="up to 50",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one run, on both sides.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Under a minute: fewer sizes, less often.")] = False,
    server: Annotated[bool, typer.Option(help="Start a server and measure it too.")] = True,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with tables and plots here.")
    ] = None,
) -> None:
    """Measure what a bundle gains: bytes, memory, latency, throughput, beside an ordinary session a task.

    Every way is timed in turn in the same run, on this machine, with as many threads each; so the ratios hold
    where the times are noisy. Without --input the inputs are random: their values do not change the cost, the
    length of texts does. A server is started on free ports of this machine, and asked by one client and by
    thirty-two at once; its own core and the client's should be different ones.
    """
    import json

    from rich.console import Console

    from coterie.cli._bench._measure import measure
    from coterie.cli._bench._tables import show
    from coterie.cli._folders import check_bundle
    from coterie.cli._read_inputs import read_inputs
    from coterie.runtime import load_bundle

    check_bundle(bundle)
    for file in (json_file, html_file):
        if file is not None:
            check_file(file)
    if html_file is not None:
        with extra("train", "a page of plots"):
            from coterie.cli._bench._page import render_page
    given = None if input_ is None else read_inputs(input_, load_bundle(bundle).manifest)
    console, progress = Console(), Console(stderr=True)
    with progress.status("measuring") as status, extra("serve", "measuring a server (or give --no-server)"):
        found = measure(
            bundle,
            given=given,
            tasks=tasks,
            threads=threads,
            quick=quick,
            server=server,
            on_progress=status.update,
        )
    show(found, console)
    if json_file is not None:
        json_file.write_text(json.dumps(found.as_json(), indent=1) + "\n", encoding="utf-8")
    if html_file is not None:
        html_file.write_text(render_page(found), encoding="utf-8")
