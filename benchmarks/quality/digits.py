"""Twenty questions about scikit-learn's handwritten digits: the study that needs no file, and the ablations.

Every task knows the answer for 15 in 100 of the training images.
"""

from __future__ import annotations

from benchmarks.quality._design import Comparison, Protocol, Study, System

RATES = {"preset": (), "lr-1e-3": ("trainer.lr=1e-3",), "lr-6e-3": ("trainer.lr=6e-3",)}
"""What every system is tried with; the presets have 2e-3 or 3e-3."""
SYSTEMS = {
    "digits": "coterie, preset digits",
    "digits-hard": "hard sharing",
    "digits-single": "one model a task",
    "digits-mmoe": "MMoE",
    "digits-noisy-topk": "noisy top-k",
    "digits-dselect-k": "DSelect-k",
    "digits-ple": "PLE",
    "digits-cross-stitch": "cross-stitch network",
    "digits-sluice": "sluice network",
}
GATED, FIRST, SECOND = (f"model.stages.{number}" for number in (1, 2, 3))


def _clusters(option: str) -> tuple[str, ...]:
    """Return an option of both cluster layers."""
    return (f"{FIRST}.{option}", f"{SECOND}.{option}")


PARTS = {
    "clusters alone": (f"{GATED}.experts=1",),
    "gates alone": _clusters("clusters=1"),
    "neither: the same depth, shared by all": (f"{GATED}.experts=1", *_clusters("clusters=1")),
    "all four experts for every task": (f"{GATED}.gates=all",),
    "one expert a task (routing)": (f"{GATED}.gates=one",),
    "gates as the paper begins": (
        f"{GATED}.probability=0.5",
        f"{GATED}.mixture=gaussian",
        f"{GATED}.density_warmup=0",
    ),
    "clusters as printed: literal, no warm-up, unlike starts": (
        *_clusters("mode=literal"),
        *_clusters("warmup=0"),
        *_clusters("alike=false"),
    ),
    "clusters literal, after the warm-up": _clusters("mode=literal"),
    "clusters by gradients": _clusters("by=gradients"),
    "clusters by function": _clusters("by=function"),
    "estimator: score function, as the paper": ("trainer.gate_estimator=score",),
    "estimator: with a baseline": ("trainer.gate_estimator=baseline",),
    "estimator: leave one out": ("trainer.gate_estimator=leave_one_out",),
    "estimator: DisARM": ("trainer.gate_estimator=disarm",),
    "estimator: local expectation": ("trainer.gate_estimator=local",),
}
SWEEP = {
    **{
        f"K = {first}, {second}": (f"{FIRST}.clusters={first}", f"{SECOND}.clusters={second}")
        for first, second in ((1, 1), (2, 4), (3, 6), (5, 10), (10, 20), (20, 20))
    },
    **{f"lambda = {price}": (f"{GATED}.density_penalty={price}",) for price in (0.003, 0.01, 0.1, 0.3)},
    **{f"M = {experts}": (f"{GATED}.experts={experts}",) for experts in (2, 8, 16)},
}


def _variant(part: str, title: str, options: tuple[str, ...], *, claim: bool) -> System:
    name = "-".join("".join(c if c.isalnum() or c == "." else " " for c in title).split()).replace(".", "_")
    return System(
        name=f"{part}-{name}", title=title, configuration="digits", options=options, part=part, claim=claim
    )


DIGITS = Study(
    name="digits",
    title="Twenty questions about digits",
    description=None,
    paths=(),
    groups={"20": ()},
    protocols=(Protocol(name="labelled", title="15 in 100 answers known"),),
    systems=(
        *(
            System(name=name, title=title, configuration=name, tries=RATES, claim=True)
            for name, title in SYSTEMS.items()
        ),
        System(
            name="ablations-two-gated",
            title="two gated layers, no clusters",
            configuration="digits-two-gated",
            part="ablations",
            claim=True,
        ),
        *(_variant("ablations", title, options, claim=True) for title, options in PARTS.items()),
        *(_variant("sweeps", title, options, claim=False) for title, options in SWEEP.items()),
    ),
    comparisons=tuple(Comparison(better="digits", worse=name) for name in SYSTEMS if name != "digits"),
    ours="digits",
    single="digits-single",
    shown=("digits", "digits-hard", "digits-mmoe", "digits-single"),
)
