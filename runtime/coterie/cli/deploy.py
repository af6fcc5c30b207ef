"""``coterie deploy``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coterie.cli._public_key import PublicKeyOption
from coterie.cli._store_option import StoreOption

EXAMPLES = (
    "Examples:\n\n"
    "$ coterie deploy bundles/reviews --store store/reviews\n\n"
    "$ coterie serve store/reviews\n\n"
    "$ coterie deploy bundles/reviews --store store/reviews --canary 10\n\n"
    "$ coterie promote --store store/reviews"
)
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
    if percent is None:
        there.switch(number)
        typer.echo(f"{store}: version {number} is served; back: coterie rollback --store {store}")
        return
    there.put_on_trial(Trial(version=number, share=percent / 100, shadow=shadow is not None))
    what = "is asked" if canary is None else "answers"
    typer.echo(
        f"{store}: version {number} {what} {percent:g} % of the requests; next: coterie promote or rollback"
    )
