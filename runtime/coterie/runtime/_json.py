"""JSON that says one thing only, whoever reads it."""

from __future__ import annotations

from collections import Counter
from typing import Any


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object, as ``json.loads``'s ``object_pairs_hook``; refuse one that names something twice.

    Of two equal names one program takes the first, another the last: what one checks, another does not use.

    Raises:
        ValueError: If a name stands twice.
    """
    made = dict(pairs)
    if len(made) != len(pairs):
        names = Counter(name for name, _ in pairs)
        raise ValueError(f"the name {names.most_common(1)[0][0][:80]!r} stands twice in one object")
    return made
