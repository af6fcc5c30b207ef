"""The option that asks for a signed bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PublicKeyOption = Annotated[
    Path | None,
    typer.Option(
        metavar="PEM", help="Refuse a bundle that is not signed with the private half of this Ed25519 key."
    ),
]
