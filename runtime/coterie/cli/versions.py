"""``coterie versions``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie.cli._store_option import StoreOption

if TYPE_CHECKING:
    from coterie.runtime.store import Store

EXAMPLES = (
    "Examples:\n\n"
    "$ coterie versions --store store/reviews\n\n"
    "$ coterie versions --store store/reviews --json | jq .current\n\n"
    "$ coterie versions --store store/reviews --prune 2"
)


def versions(
    store: StoreOption,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for a program.")] = False,
    prune: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="First remove, for good, the versions older than the served one, but for the N that a "
            "rollback leads to, and one on trial.",
        ),
    ] = None,
) -> None:
    """List a store's versions: which is served, which is on trial, and which a server could not load."""
    from coterie.runtime.store import Store

    opened = Store(store)
    if prune is not None:
        for number in opened.prune(prune):
            typer.echo(f"version {number} is removed", err=True)
    found = _describe(opened)
    if as_json:
        typer.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for each in found["versions"]:
        typer.echo(f"{each['version']:>6}  {each['name']}  {each['state']}".rstrip())


def _describe(store: Store) -> dict[str, Any]:
    from coterie.runtime.bundle._bundle import read_manifest
    from coterie.runtime.errors import BundleError
    from coterie.runtime.manifest import parse_manifest

    pointer = store.pointer() if store.is_served else None
    failures = store.failures()
    listed = []
    for number in store.versions:
        try:
            name = parse_manifest(read_manifest(store.folder(number))).name
        except BundleError as error:
            name = f"(damaged: {error})"
        states = []
        if pointer is not None and number == pointer.current:
            states.append("served")
        if pointer is not None and pointer.trial is not None and number == pointer.trial.version:
            kind = "shadow" if pointer.trial.shadow else "canary"
            states.append(f"{kind}, {pointer.trial.share:.4g} of the requests")
        if number in failures:
            states.append(f"a server could not load it: {failures[number]}")
        listed.append({"version": number, "name": name, "state": "; ".join(states)})
    return {
        "current": None if pointer is None else pointer.current,
        "history": [] if pointer is None else list(pointer.history),
        "versions": listed,
    }
