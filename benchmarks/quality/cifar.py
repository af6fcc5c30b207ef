"""CIFAR-100 as twenty tasks: which of its five fine classes an image of a superclass is."""

from __future__ import annotations

from benchmarks.quality._design import ROOT, Comparison, Protocol, Study, System

_DROPOUT = "model.stages.0.block.dropout"
_CHANNELS = "model.stages.0.block.channel_dropout"
_COSINE = ("trainer.schedule=cosine", "trainer.lr=2e-3")

TRIES = {
    "constant": ("trainer.schedule=constant", "trainer.lr=1e-3", f"{_DROPOUT}=0", f"{_CHANNELS}=0"),
    "cosine": (*_COSINE, f"{_DROPOUT}=0", f"{_CHANNELS}=0"),
    "dropout": (*_COSINE, f"{_DROPOUT}=0.3", f"{_CHANNELS}=0.1"),
}
"""What every system is tried with, ours too: the paper's rate, a schedule, and dropout with it."""

SYSTEMS = {
    "images": "coterie, preset images",
    "cifar-independent": "20 independent networks",
    "cifar-trunk": "one shared trunk",
    "multi-clustering": "Task Multi-Clustering, as in the paper",
    "routing": "routing network",
    "ungated": "ungated mixture",
}

_ABLATIONS = (
    System(
        name="trunk-recognition",
        title="one shared trunk that recognises the tasks",
        configuration="cifar-trunk",
        options=("model.stages.0.recognition=0.5",),
        tries=TRIES,
        part="ablations",
    ),
    System(
        name="images-no-recognition",
        title="images without recognition",
        configuration="images",
        options=("model.stages.0.recognition=0",),
        tries=TRIES,
        part="ablations",
    ),
)

CIFAR = Study(
    name="cifar",
    title="Images, CIFAR-100 as twenty tasks",
    description=ROOT / "examples" / "cifar100" / "data.yaml",
    paths=("data.path.train", "data.path.test"),
    groups={"20": ()},
    protocols=(
        Protocol(name="12500", title="12,500 training images"),
        Protocol(
            name="45000", title="45,000 training images", options=("data.train_share=1", "trainer.epochs=20")
        ),
    ),
    systems=tuple(
        System(name=name, title=title, configuration=name, tries=TRIES, claim=True)
        for name, title in SYSTEMS.items()
    )
    + _ABLATIONS,
    comparisons=tuple(Comparison(better="images", worse=name) for name in SYSTEMS if name != "images"),
    ours="multi-clustering",
    single="cifar-independent",
    shown=("images", "multi-clustering", "cifar-independent", "cifar-trunk", "ungated"),
)
