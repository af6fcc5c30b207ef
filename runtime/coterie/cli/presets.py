"""``coterie presets``."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from coterie.cli._extras import extra


def presets() -> None:
    """List the configurations that come with coterie."""
    with extra("train", "coterie presets"):
        from coterie.training import list_presets

    table = Table("preset", "what it trains", box=None)
    for name, text in list_presets().items():
        table.add_row(name, text)
    Console().print(table)
