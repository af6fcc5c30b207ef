"""The option that names a bundle store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StoreOption = Annotated[
    Path, typer.Option("--store", "-s", metavar="FOLDER", help="The bundle store; deploy makes a new one.")
]
