"""GUM: four taggings of English sentences of 15 genres, asked of 8 other genres too."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.quality._design import ROOT, Comparison, Protocol, Study, System

_WORDS = "model.stages.0.block"
_TWO_STAGES = (_WORDS, "model.stages.1.block", "model.stages.2.block")
_TWO_LAYERS = (_WORDS, "model.stages.1.layers.0", "model.stages.1.layers.1")

SYSTEMS = {
    "tagging": ("coterie, preset tagging", _TWO_LAYERS),
    "tagging-sluice": ("sluice network", _TWO_LAYERS),
    "tagging-single": ("single task", _TWO_STAGES),
    "tagging-cross-stitch": ("cross-stitch network", _TWO_LAYERS),
    "tagging-low-supervision": ("low supervision", _TWO_LAYERS),
    "tagging-hard": ("hard sharing", _TWO_STAGES),
}
"""Titles by presets, and where their blocks stand."""


def _tries(blocks: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return what every system is tried with, ours too: less dropout or more."""
    return {
        f"dropout-{share}": tuple(f"{block}.dropout={share}" for block in blocks) for share in ("0.2", "0.4")
    }


GUM = Study(
    name="gum",
    title="Tagging, GUM",
    description=ROOT / "examples" / "gum" / "data.yaml",
    paths=("data.path",),
    groups={"4": ()},
    splits=("test", "ood"),
    unit="mean of the accuracies of words and the F1 of entities, in %",
    protocols=(
        Protocol(name="genres", title="15 genres; test: sentences of the same genres, ood: of 8 others"),
    ),
    systems=tuple(
        System(name=name, title=title, configuration=name, tries=_tries(blocks), claim=True)
        for name, (title, blocks) in SYSTEMS.items()
    ),
    comparisons=tuple(
        Comparison(better="tagging", worse=name, split=split)
        for split in ("test", "ood")
        for name in SYSTEMS
        if name != "tagging"
    ),
    ours="tagging",
    single="tagging-single",
    shown=tuple(SYSTEMS),
)
