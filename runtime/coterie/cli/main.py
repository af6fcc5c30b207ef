"""The command ``coterie``: one subcommand a module."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from coterie.cli import demo, export, inspect, predict, presets, serve, train
from coterie.runtime.errors import CoterieError

app = typer.Typer(
    name="coterie",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train, export and serve clustered multi-task models.\n\n"
    "The usual way: [bold]coterie train[/] a run, [bold]coterie export[/] it to a bundle, [bold]coterie "
    "inspect[/] who shares with whom, [bold]coterie serve[/] it over HTTP and gRPC.",
)
_OVERRIDES = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command("train", context_settings=_OVERRIDES)(train.train)
app.command("presets")(presets.presets)
app.command("export")(export.export)
app.command("inspect")(inspect.inspect)
app.command("predict")(predict.predict)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)


def run() -> None:
    """Run the command; a mistake of the user's is told in words, without a stack trace."""
    try:
        app()
    except CoterieError as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {_plain(str(error))}", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _plain(text: str) -> str:
    """Keep square brackets in a message from being read as markup."""
    return text.replace("[", r"\[")
