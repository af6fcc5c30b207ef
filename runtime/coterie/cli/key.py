"""``coterie key``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    "Examples:\n\n"
    "$ coterie key shop --keys keys.json\n\n"
    "$ coterie key books-team --keys keys.json --task 'books*' --task topic\n\n"
    "$ coterie key prometheus --keys keys.json --metrics\n\n"
    "$ coterie key shop --keys keys.json --revoke\n\n"
    "$ coterie serve bundles/reviews --keys keys.json\n\n"
    "$ curl -H 'Authorization: Bearer cot_...' localhost:3000/tasks"
)


def key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.")],
    keys: Annotated[Path, typer.Option(help="The file of keys; made where there is none.")] = Path(
        "keys.json"
    ),
    task: Annotated[
        list[str] | None,
        typer.Option(help="A task that it may ask; * stands for any characters. Repeatable; all by default."),
    ] = None,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Let it read /metrics, which names all tasks.")
    ] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take the key of that name back.")] = False,
) -> None:
    """Make an API key for a server, and print it: this once.

    The file holds a hash of it alone. A server that was started with --keys notices a change of the file
    within a second: it takes questions with one of its keys only, each about the tasks that it may ask.
    """
    from coterie.runtime.serving.access._keys import add_key, revoke_key

    if revoke:
        revoke_key(keys, name)
        typer.echo(f"{name}: revoked", err=True)
        return
    typer.echo(add_key(keys, name, tasks=task or ("*",), metrics=metrics))
    typer.echo(f"the key of {name!r}; it is not written down anywhere: keep it", err=True)
