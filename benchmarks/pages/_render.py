"""From a template and the results to a page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from operator import getitem
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import jinja2

from benchmarks.common import RESULTS
from benchmarks.quality import PARTS

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
IMAGES = ROOT / "docs" / "images"

PAGES = {
    "README.md": HERE / "README.md.j2",
    "docs/performance.md": HERE / "performance.md.j2",
    "docs/results.md": HERE / "results.md.j2",
}
"""Each page, from the root of the repository, and its template."""

_EXPRESSIONS = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_FIGURE = re.compile(
    r"(?<![\w.])\d[\d,]*(?:\.\d+)? ?(?:%|x\b|ms\b|[KMG]i?B\b|points?\b|times\b|s\b|seconds\b)"
)


class _Results(Mapping[str, Any]):
    """The results by name, each read when a template asks for it."""

    def __getitem__(self, name: str) -> Any:
        file = RESULTS / f"{name}.json"
        if not file.is_file():
            raise KeyError(name)
        return json.loads(file.read_text(encoding="utf-8"))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(file.stem for file in RESULTS.glob("*.json")))

    def __len__(self) -> int:
        return len(list(RESULTS.glob("*.json")))


def render(template: Path) -> str:
    """Return a page.

    Raises:
        jinja2.UndefinedError: If it asks for a figure that no result has.
    """
    environment = jinja2.Environment(
        autoescape=False,  # noqa: S701 - Markdown, of our own words and numbers
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "d0": "{:,.0f}".format,
        "d1": "{:.1f}".format,
        "d2": "{:.2f}".format,
        "pct": lambda share, digits=2: f"{100 * share:.{digits}f}",
        "mib": _bytes,
        "each": _each,
        "mean": fmean,
        "deviation": stdev,
        "p": lambda value: f"{value:.3f}" if value >= 0.001 else "< .001",
        "error": lambda value: f"{value:.1e}".replace("e-0", "e-"),
    }
    words = {"parts": PARTS, "pictures": lambda study: _pictures(f"quality-{study}-")}
    return environment.from_string(template.read_text(encoding="utf-8")).render(**words, **_Results())


def _pictures(prefix: str) -> list[str]:
    """Return the names of the pictures in docs/images that begin so."""
    return sorted(file.name for file in IMAGES.glob(f"{prefix}*.png"))


def literal_figures(template: Path) -> list[str]:
    """Return the figures, numbers with a unit, that a template's own words hold: they have no source."""
    words = _CODE.sub("", _EXPRESSIONS.sub("", template.read_text(encoding="utf-8")))
    return _FIGURE.findall(words)


def _each(rows: Iterable[Any], *keys: str) -> list[Any]:
    """Return of every row what lies under these keys, one in the other."""
    return [reduce(getitem, keys, row) for row in rows]


def _bytes(count: float, digits: int = 1) -> str:
    size = count / 1024**2
    return f"{size:.{digits}f} MiB" if size < 1024 else f"{size / 1024:.{digits}f} GiB"
