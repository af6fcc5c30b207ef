"""``coterie keygen``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coterie.cli._destination import check_file

EXAMPLES = (
    "Examples:\n\n"
    "$ coterie keygen team\n\n"
    "$ coterie keygen keys/release --passphrase\n\n"
    "The private key signs (coterie sign); whoever serves or loads a bundle needs the public one alone."
)


def keygen(
    name: Annotated[
        Path, typer.Argument(metavar="NAME", help="Writes NAME.pem, the private key, and NAME.pub.pem.")
    ],
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Ask for a passphrase and encrypt the private key with it.")
    ] = False,
) -> None:
    """Make a pair of Ed25519 keys to sign bundles with.

    Only you can read the private key; keep it where bundles are released and nowhere else. Keys that openssl
    genpkey -algorithm ed25519 made will do as well.
    """
    from coterie.runtime.bundle._signature import make_keys

    private, public = (name.with_name(f"{name.name}{ending}") for ending in (".pem", ".pub.pem"))
    for file in (private, public):
        check_file(file)
    secret = None
    if passphrase:
        secret = typer.prompt("passphrase", hide_input=True, confirmation_prompt=True, err=True).encode()
    make_keys(private, public, secret)
    typer.echo(f"{private}: the private key, for coterie sign --key")
    typer.echo(f"{public}: the public key, for --public-key of serve, predict and inspect")
