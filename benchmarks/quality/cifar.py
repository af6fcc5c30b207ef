"""CIFAR-100 as twenty tasks: which of its five fine classes an image of a superclass is."""

from __future__ import annotations

from benchmarks.quality._design import ROOT, Protocol, Study, System

SYSTEMS = {
    "cifar-trunk": "one shared trunk",
    "cifar-independent": "20 independent networks",
    "ungated": "ungated mixture",
    "routing": "routing network",
    "multi-clustering": "Task Multi-Clustering, as in the paper",
}

CIFAR = Study(
    name="cifar",
    title="Images, CIFAR-100 as twenty tasks",
    description=ROOT / "examples" / "cifar100" / "data.yaml",
    paths=("data.path.train", "data.path.test"),
    groups={"20": ()},
    protocols=(
        Protocol(name="12500", title="12,500 training images"),
        Protocol(name="45000", title="45,000 training images", options=("data.train_share=1",)),
    ),
    systems=tuple(
        System(name=name, title=title, configuration=name, claim=True) for name, title in SYSTEMS.items()
    ),
    comparisons=(),
    ours="multi-clustering",
    single="cifar-independent",
    shown=("images", "multi-clustering", "cifar-independent", "cifar-trunk", "ungated"),
)
