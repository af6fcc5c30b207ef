"""``coterie demo``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from coterie.cli._extras import extra

EXAMPLES = "Examples:\n\n$ coterie demo\n\n$ coterie demo --quick --out /tmp/demo --json demo.json"


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the runs and the bundle go.")] = Path(
        "demo-out"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="Train for a few epochs only; accuracy suffers.")
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write everything that was measured as JSON."),
    ] = None,
) -> None:
    """Show the whole of it on real data: train, export, serve, ask over HTTP and gRPC, compare.

    The data are scikit-learn's handwritten digits with twenty questions about each image; nothing is
    downloaded. Three systems are trained: single-task models, hard sharing, and coterie's. A real server then
    answers for every task, and each answer is compared with torch's. It takes a minute or two on two cores.

    The exit code is 1 when an answer differs from torch's by more than 1e-4.
    """
    from rich.console import Console

    with extra("all", "coterie demo"):
        from coterie.cli._demo import _ask, _files, _folder, _latency, _report, _train
        from coterie.runtime.serving import running_server

    began = time.perf_counter()
    console = Console()
    _folder.prepare(out)
    console.print("[bold]1[/] training three systems on the digits", highlight=False)
    trained = _train.train_systems(out / "runs", console, quick=quick)
    console.print("[bold]2[/] exporting; every graph is checked against torch", highlight=False)
    ours = _files.export_everything(trained[_train.OURS].run, out)
    single = _files.export_everything(trained[_train.SINGLE].run, out)
    console.print("[bold]3[/] starting a server and asking it over HTTP and gRPC", highlight=False)
    questions = _ask.Questions(trained[_train.OURS].run)
    ways = list(_ask.ask_in_process(questions, ours))
    with running_server(ours.bundle) as addresses:
        ways += _ask.ask_server(questions, addresses, ours.manifest.inputs[0].name)
    console.print("[bold]4[/] server stopped; timing", highlight=False)
    timings = _latency.measure(ours, questions.inputs)
    found = _report.Findings(trained, ours, single, ways, timings)
    _report.show(found, console)
    if json_file is not None:
        json_file.write_text(json.dumps(found.as_json(), indent=1), encoding="utf-8")
    console.print(
        f"it took {time.perf_counter() - began:.0f} s; look further: coterie inspect {ours.bundle}; "
        f"coterie serve {ours.bundle}",
        highlight=False,
    )
    if not found.agrees:
        typer.echo(f"an answer differs from torch's by more than {_ask.TOLERANCE:.0e}", err=True)
        raise typer.Exit(1)
