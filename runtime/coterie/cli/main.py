"""The command ``coterie``: one subcommand a module."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from inspect import cleandoc
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from coterie.cli import (
    bench,
    demo,
    deploy,
    diff,
    export,
    inspect,
    key,
    keygen,
    predict,
    presets,
    promote,
    rollback,
    serve,
    sign,
    top,
    train,
    versions,
)
from coterie.cli._overridable import Overridable

MISTAKE = 2
"""Exit code when the user has to change something."""


_TAKEN = "something else is there: give another path"
_ADVICE = {
    errno.EEXIST: _TAKEN,
    errno.ENOTDIR: "a part of the path is a file: give another path",
    errno.EISDIR: "give a file's path",
    errno.ENOTEMPTY: _TAKEN,
    errno.EACCES: "check its permissions, or give another path",
    errno.EPERM: "check its permissions, or give another path",
    errno.EROFS: "give another path",
    errno.ENOSPC: "make room, or give another path",
}
"""What to do about what the system says of a file; else to check its path."""


class _Commands(TyperGroup):
    """Tells a mistake of the user's in words, without a stack trace."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            # Imported here: a help text needs none of the runtime.
            from coterie.runtime.errors import CoterieError

            told = _file_error(error) if isinstance(error, OSError) else str(error)
            if not told or not isinstance(error, CoterieError | OSError):
                raise
            typer.secho("error: ", fg=typer.colors.RED, bold=True, nl=False, err=True)
            typer.echo(told, err=True)
            raise typer.Exit(MISTAKE) from error


def _file_error(error: OSError) -> str:
    """Return which file a command cannot read or write, why, and what to do; nothing if it is of no file."""
    file = error.filename if error.filename2 is None else error.filename2
    if file is None:
        return ""
    name = file if isinstance(file, int) else os.fsdecode(file)
    return f"{name}: {error.strerror}: {_ADVICE.get(error.errno or 0, 'check the path')}"


app = typer.Typer(
    name="coterie",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog="The usual way:\n\n"
    "$ coterie train digits\n\n$ coterie export runs/digits\n\n$ coterie inspect bundles/digits\n\n"
    "$ coterie serve bundles/digits\n\n"
    "Each command has its own help and examples: coterie train --help. All of it at once: coterie demo.",
)


def _help_of(function: Callable[..., None]) -> str:
    """Return the docstring with each paragraph on one line: the terminal's width decides where it breaks."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", cleandoc(function.__doc__ or ""))


_COMMANDS = (
    *(train, presets, export, inspect, diff, sign, keygen, predict),
    *(serve, key, deploy, promote, rollback, versions, top, bench, demo),
)
for _module in _COMMANDS:
    _name = _module.__name__.rpartition(".")[2]
    _function = getattr(_module, _name)
    app.command(
        _name,
        cls=Overridable if _module is train else TyperCommand,
        help=_help_of(_function),
        epilog=_module.EXAMPLES,
        no_args_is_help=_module not in (presets, top, demo),
    )(_function)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("coterie"))
        raise typer.Exit


def coterie(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Train, export and serve clustered multi-task models.

    A model learns which of its tasks share which weights. An export freezes that into a bundle: a folder of
    ONNX graphs over one weight file. A server answers for every task from it, over HTTP and gRPC.
    """


app.callback(help=_help_of(coterie))(coterie)


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command and end the process: 0 well, 1 a check failed, 2 a mistake to correct."""
    try:
        app(arguments)
    except KeyboardInterrupt:
        sys.exit(130)
