"""``coterie promote``."""

from __future__ import annotations

import typer

from coterie.cli._store_option import StoreOption

EXAMPLES = "Examples:\n\n$ coterie promote --store store/reviews"


def promote(store: StoreOption) -> None:
    """Serve the version that is on trial, to everybody.

    It is the one that coterie deploy --canary or --shadow put there; coterie rollback ends the trial instead.
    """
    from coterie.runtime.errors import BundleError
    from coterie.runtime.store import Store

    there = Store(store)
    trial = there.pointer().trial
    if trial is None:
        raise BundleError(
            "no version is on trial: put one there with coterie deploy BUNDLE --store FOLDER --canary PERCENT"
        )
    there.switch(trial.version)
    typer.echo(f"{store}: version {trial.version} is served")
