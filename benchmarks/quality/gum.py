"""GUM: four taggings of English sentences of 15 genres, asked of 8 other genres too."""

from __future__ import annotations

from benchmarks.quality._design import ROOT, Comparison, Protocol, Study, System

SYSTEMS = {
    "tagging": "coterie, preset tagging",
    "tagging-sluice": "sluice network",
    "tagging-single": "single task",
    "tagging-cross-stitch": "cross-stitch network",
    "tagging-low-supervision": "low supervision",
    "tagging-hard": "hard sharing",
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
        System(name=name, title=title, configuration=name, claim=True) for name, title in SYSTEMS.items()
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
