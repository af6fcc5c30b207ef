"""``coterie deploy``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coterie.cli._public_key import PublicKeyOption
from coterie.cli._store_option import StoreOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coterie.runtime.store import Store

EXAMPLES = (
    "Examples:\n\n"
    "$ coterie deploy bundles/reviews --store store/reviews\n\n"
    "$ coterie serve store/reviews\n\n"
    "$ coterie deploy bundles/reviews --store store/reviews --canary 10\n\n"
    "$ coterie promote --store store/reviews"
)
_SHOWN = 5
"""Tasks that are named."""
_Percent = Annotated[
    float | None,
    typer.Option("--canary", min=0.01, max=100, help="Try it: it answers so many percent of the requests."),
]
_Shadow = Annotated[
    float | None,
    typer.Option(
        "--shadow",
        min=0.01,
        max=100,
        help="Try it: it is asked so many percent of the requests, and only compared.",
    ),
]


def deploy(
    bundle: Annotated[Path, typer.Argument(help="The bundle to serve next.")],
    store: StoreOption,
    canary: _Percent = None,
    shadow: _Shadow = None,
    public_key: PublicKeyOption = None,
) -> None:
    """Put a bundle into a store as its next version, and serve it.

    The bundle is verified, copied, and asked a first question; one that fails is refused, and nothing
    changes. Servers of the store load and warm it beside what they serve, and switch between two requests.
    With --canary or --shadow it is only tried, until coterie promote or coterie rollback.
    """
    from coterie.cli._folders import check_bundle
    from coterie.runtime.errors import ConfigError
    from coterie.runtime.store import Store, Trial

    if canary is not None and shadow is not None:
        raise ConfigError("the bundle cannot be tried so", ["give one of --canary and --shadow"])
    check_bundle(bundle)
    percent = canary if shadow is None else shadow
    if percent is not None:
        Store(store).pointer()  # a trial is beside something that is served
    there = Store.create(store)
    number = there.add(bundle, public_key=public_key)
    if there.is_served:
        for line in _unlike(there, there.pointer().current, number):
            typer.echo(f"note: {line}", err=True)
    if percent is None:
        there.switch(number)
        typer.echo(f"{store}: version {number} is served; back: coterie rollback --store {store}")
        return
    there.put_on_trial(Trial(version=number, share=percent / 100, shadow=shadow is not None))
    what = "is asked" if canary is None else "answers"
    typer.echo(
        f"{store}: version {number} {what} {percent:g} % of the requests; next: coterie promote or rollback"
    )


def _unlike(store: Store, served: int, number: int) -> Iterator[str]:
    """Yield what those who ask the served version cannot ask the next one."""
    from coterie.runtime.bundle._bundle import read_manifest
    from coterie.runtime.errors import BundleError
    from coterie.runtime.manifest import parse_manifest

    try:
        before, after = (parse_manifest(read_manifest(store.folder(each))) for each in (served, number))
    except BundleError:  # what is served may be damaged, and be replaced for that
        return
    if before.inputs != after.inputs or (before.text is None) != (after.text is None):
        yield f"version {number} takes other inputs than version {served}: questions to that one may fail"
    left = {entry.task.name for entry in after.tasks}
    gone = [entry.task.name for entry in before.tasks if entry.task.name not in left]
    if gone:
        more = ", ..." if len(gone) > _SHOWN else ""
        yield f"version {number} lacks tasks of version {served}: {', '.join(gone[:_SHOWN])}{more}"
