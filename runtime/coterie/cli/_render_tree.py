"""The tree of clusters on a terminal: as deep as there is room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.tree import Tree

Branches = Sequence[Mapping[str, Any]]


def tree_of(branches: Branches, rows: int | None) -> Tree:
    """Return the tree.

    Args:
        branches: What ``summarise`` found.
        rows: Most lines; layers for which there is no room are counted. ``None`` is no limit.
    """
    tree = Tree("[bold]clusters, from the most general layer to the most specific[/]", guide_style="dim")
    _add(tree, branches, _fitting(branches, rows), rows)
    return tree


def names(tasks: Sequence[str], rows: int | None) -> str:
    """Return tasks in a line; the rest is counted."""
    left = 0 if rows is None else len(tasks) - rows
    return escape(", ".join(tasks[:rows])) + (f", and {left} more" if left > 0 else "")


def _fitting(branches: Branches, rows: int | None) -> int | None:
    """Return how many layers fit; the first one always does. ``None``: all."""
    count, layers, level = 0, 0, branches
    while level:
        count += len(level)
        if layers and rows is not None and count > rows:
            return layers
        layers += 1
        level = [each for branch in level for each in branch["branches"]]
    return None


def _add(tree: Tree, branches: Branches, layers: int | None, rows: int | None) -> None:
    for branch in branches[:rows]:
        count, inner = len(branch["tasks"]), branch["branches"]
        of = f"{count} of its {branch['of']}" if branch["of"] > count else str(count)
        line = f"{escape(branch['block'])} [dim]{of} task{'' if branch['of'] == 1 else 's'}[/]"
        if not inner:
            tree.add(f"{line}  {names(branch['tasks'], rows)}")
        elif layers == 1:
            tree.add(f"{line}  {len(inner)} groups in {escape(inner[0]['stage'])}")
        else:
            _add(tree.add(line), inner, None if layers is None else layers - 1, rows)
    if rows is not None and len(branches) > rows:
        tree.add(f"... and {len(branches) - rows} more (--all shows them)")
