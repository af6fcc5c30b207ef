"""``coterie sign``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    "Examples:\n\n"
    "$ coterie keygen team\n\n"
    "$ coterie sign bundles/digits --key team.pem\n\n"
    "$ coterie serve bundles/digits --public-key team.pub.pem"
)


def sign(
    bundle: Annotated[Path, typer.Argument(help="The bundle to sign.")],
    key: Annotated[
        Path,
        typer.Option("--key", "-k", metavar="PEM", help="Ed25519 private key; coterie keygen makes one."),
    ],
) -> None:
    """Sign a bundle, so that who loads it can tell that it is yours and as you left it.

    The bundle is verified first, and then its manifest is signed, which holds the checksum of every other
    file. The signature goes into manifest.sig beside it; nothing else changes. A passphrase is asked for when
    the key has one.
    """
    from coterie.cli._folders import check_bundle
    from coterie.runtime import load_bundle
    from coterie.runtime.bundle._signature import is_encrypted, sign_manifest

    check_bundle(bundle)
    verified = load_bundle(bundle)
    passphrase = None
    if is_encrypted(key):
        passphrase = typer.prompt("passphrase", hide_input=True, err=True).encode()
    file = sign_manifest(verified.path, key, passphrase)
    typer.echo(f"{bundle / file.name}: signed; next: coterie serve {bundle} --public-key PUBLIC_KEY.pem")
