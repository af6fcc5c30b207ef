"""A command that takes every setting of a configuration as an option of the same name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*(\.\w+)*=")


class Overridable(TyperCommand):
    """Takes ``--trainer.epochs 5``, ``--trainer.epochs=5`` and ``trainer.epochs=5``, wherever they stand.

    They end up in ``ctx.args``. Options that the command declares itself are left to it.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the overrides out of the arguments, and parse the rest."""
        own, overrides = self._divide(args, ctx)
        rest = super().parse_args(ctx, own)
        ctx.args = [*rest, *overrides]
        return rest

    def _divide(self, args: list[str], ctx: Any) -> tuple[list[str], list[str]]:
        takes_value = {
            name: not getattr(parameter, "is_flag", False)
            for parameter in self.get_params(ctx)
            for name in (*parameter.opts, *parameter.secondary_opts)
            if name.startswith("-")
        }
        own: list[str] = []
        overrides: list[str] = []
        words: Iterator[str] = iter(args)
        for word in words:
            name, equals, _ = word.partition("=")
            if name in takes_value:
                own.append(word)
                if takes_value[name] and not equals:
                    own.extend(_next(words))
            elif word.startswith("--"):
                overrides.append(word)
                if not equals:
                    overrides.extend(_next(words))
            else:
                (overrides if _ASSIGNMENT.match(word) else own).append(word)
        return own, overrides


def _next(words: Iterator[str]) -> list[str]:
    word = next(words, None)
    return [] if word is None else [word]
