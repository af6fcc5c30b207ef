"""``coterie rollback``."""

from __future__ import annotations

from typing import Annotated

import typer

from coterie.cli._store_option import StoreOption

EXAMPLES = (
    "Examples:\n\n$ coterie rollback --store store/reviews\n\n$ coterie rollback --store store/reviews --to 3"
)


def rollback(
    store: StoreOption,
    to: Annotated[
        int | None,
        typer.Option(min=1, help="The version to serve again.", show_default="the one before"),
    ] = None,
) -> None:
    """End a trial; when there is none, serve the version that was served before.

    Servers of the store follow by themselves, and lose no request. Given again it goes back further.
    """
    from coterie.runtime.store import Store

    pointer = Store(store).rollback(to)
    typer.echo(f"{store}: version {pointer.current} is served")
