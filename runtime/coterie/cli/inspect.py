"""``coterie inspect``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from coterie.cli._public_key import PublicKeyOption

EXAMPLES = (
    "Examples:\n\n"
    "$ coterie inspect bundles/digits\n\n"
    "$ coterie inspect runs/digits\n\n"
    "$ coterie inspect bundles/digits --json | jq .clusters"
)
_ROWS = 60


def inspect(
    folder: Annotated[Path, typer.Argument(help="A bundle or a run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for a program.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every task, however many there are.")
    ] = False,
    public_key: PublicKeyOption = None,
) -> None:
    """Show what a bundle or a run holds: tasks, blocks, who shares with whom, sizes, parity, provenance.

    A bundle is verified first: length and SHA-256 of every file, and with --public-key who signed it. Blocks
    of a task are counted stage by stage; "trained" and "kept" are the blocks before and after the freeze.
    """
    from coterie.cli._summary import summarise

    summary = summarise(folder, public_key=public_key)
    if as_json:
        typer.echo(json.dumps(summary, indent=1, ensure_ascii=False))
        return
    from rich.console import Console

    from coterie.cli._render import show

    show(summary, Console(), rows=None if everything else _ROWS)
