"""``coterie presets``."""

from __future__ import annotations

from coterie.cli._extras import extra

EXAMPLES = "Examples:\n\n$ coterie presets\n\n$ coterie train digits"


def presets() -> None:
    """List the configurations that come with coterie."""
    with extra("train", "coterie presets"):
        from coterie.training import list_presets

    from rich.console import Console
    from rich.table import Table

    table = Table("preset", "what it trains", box=None)
    for name, text in list_presets().items():
        table.add_row(name, text)
    Console().print(table)
