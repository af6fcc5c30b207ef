"""Which blocks keep fp32, so that no task loses more than it may on validation data.

All blocks are narrow at first. While some task loses too much, the block that does most damage, among those
that such a task uses, goes back to fp32. A block's damage is measured with that block alone narrow: the most
that any task loses, and where blocks lose alike, how far scores move.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from coterie.exporter._builder import serialize
from coterie.exporter._cut_columns import Measure
from coterie.exporter._files import ROUTER_FILE
from coterie.exporter._metrics import router_of
from coterie.exporter._model import BoundModel
from coterie.exporter._precision._agree import about_every_task, as_tensors
from coterie.exporter._router import router_graph
from coterie.exporter._verify import Checked, Floats, Reference
from coterie.exporter._weights import WeightFile
from coterie.runtime.errors import ExportError
from coterie.runtime.manifest import Precision
from coterie.training.several import Arrays

_POINTS = 100.0
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Unit:
    """What is stored in one precision: a block, or all heads together.

    Attributes:
        name: The block's or the head stage's name.
        stage: Number of its stage.
        block: Its number in the stage; None for the heads.
        tasks: The tasks that use it.
    """

    name: str
    stage: int
    block: int | None
    tasks: frozenset[str]


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        model: The blocks, each in its precision.
        costly: Blocks that keep fp32 because they cost too much.
        drops: Task to the points that it loses.
    """

    model: BoundModel
    costly: tuple[str, ...]
    drops: Mapping[str, float]


def precisions(model: BoundModel) -> dict[str, Precision]:
    """Return what each block's weights are stored in, by the block's name."""
    found = {block.name: block.precision for bank in model.blocks for block in bank}
    for index, block in enumerate(model.plan.stages[-1].blocks):
        found[block.name] = model.head_of(index).heads.precision
    return found


def narrow_units(model: BoundModel) -> list[Unit]:
    """Return what is stored in less than fp32."""
    units = []
    for number, (stage, bank) in enumerate(zip(model.plan.stages, model.blocks, strict=False)):
        for index, block in enumerate(bank):
            if block.precision != "fp32":
                users = [
                    task for task, used in zip(model.plan.tasks, stage.uses, strict=True) if index in used
                ]
                units.append(Unit(block.name, number, index, frozenset(users)))
    if any(group.heads.precision != "fp32" for group in model.heads):
        last = len(model.plan.stages) - 1
        units.append(Unit(model.plan.stages[last].name, last, None, frozenset(model.plan.tasks)))
    return units


def mixed(narrow: BoundModel, wide: BoundModel, in_fp32: Sequence[Unit]) -> BoundModel:
    """Return a model whose units are narrow, but for those given."""
    kept = {(unit.stage, unit.block) for unit in in_fp32}
    blocks = tuple(
        tuple(
            fp32 if (number, index) in kept else other
            for index, (other, fp32) in enumerate(zip(bank, wide_bank, strict=True))
        )
        for number, (bank, wide_bank) in enumerate(zip(narrow.blocks, wide.blocks, strict=True))
    )
    heads = wide.heads if (len(narrow.plan.stages) - 1, None) in kept else narrow.heads
    return replace(narrow, blocks=blocks, heads=heads)


class Trials:
    """Asks the routers of models that mix precisions; their tensors lie in one weight file."""

    def __init__(
        self, folder: Path, weights: WeightFile, *, narrow: BoundModel, wide: BoundModel, samples: Arrays
    ) -> None:
        self._folder, self._weights = folder, weights
        self.narrow, self.wide = narrow, wide
        self._samples = as_tensors(samples)
        self._wanted = self._about_samples(self.router(wide))

    def in_fp32(self) -> Checked:
        """Return the router in fp32, to be checked against the torch model."""
        self.router(self.wide)
        return Checked(self._folder, self.wide.inputs, self.wide.tasks, [], ROUTER_FILE)

    def router(self, model: BoundModel) -> Reference:
        """Return a model's router, as something to ask."""
        (self._folder / ROUTER_FILE).write_bytes(serialize(router_graph(model, self._weights)))
        return router_of(Checked(self._folder, model.inputs, model.tasks, [], ROUTER_FILE))

    def moved(self, router: Reference) -> float:
        """Return how far a router's scores about the samples lie from those in fp32, on the mean."""
        return float(np.abs(self._about_samples(router) - self._wanted).mean())

    def _about_samples(self, router: Reference) -> Floats:
        return about_every_task(router, self._samples, len(self.wide.tasks))


def choose(
    trials: Trials,
    *,
    measure: Measure,
    reference: Reference,
    allowed: float,
    on_progress: Callable[[str], None],
) -> Choice:
    """Choose the blocks that keep fp32.

    Args:
        trials: The models in both precisions.
        measure: What a model scores on validation data.
        reference: The torch model, which drops are measured from.
        allowed: Points that a task may lose.
        on_progress: Called with a line for each block that goes back to fp32.

    Raises:
        ExportError: If no block can be narrow; says by how much it failed.
    """
    wanted = measure(reference)

    def drops_of(router: Reference) -> dict[str, float]:
        got = measure(router)
        return {task: _POINTS * (value - got[task]) for task, value in wanted.items()}

    units, in_fp32 = narrow_units(trials.narrow), []
    drops = at_first = drops_of(trials.router(trials.narrow))
    damage: dict[str, tuple[float, float]] = {}
    while losing := {task for task, drop in drops.items() if drop > allowed + _ROUNDING}:
        left = [unit for unit in units if unit not in in_fp32 and not losing.isdisjoint(unit.tasks)]
        for unit in left:
            if unit.name not in damage:
                alone = trials.router(
                    mixed(trials.narrow, trials.wide, [other for other in units if other is not unit])
                )
                damage[unit.name] = (_worst(drops_of(alone)), trials.moved(alone))
        if left:
            worst = max(left, key=lambda unit: damage[unit.name])
            in_fp32.append(worst)
        if not left or len(in_fp32) == len(units):
            raise _nothing(trials.narrow, at_first, damage, allowed)
        drops = drops_of(trials.router(mixed(trials.narrow, trials.wide, in_fp32)))
        on_progress(f"{worst.name} stays fp32: tasks lose {_worst(drops):.2f} points at most without it")
    return Choice(
        mixed(trials.narrow, trials.wide, in_fp32),
        tuple(sorted(unit.name for unit in in_fp32)),
        {task: round(drop, 4) for task, drop in drops.items()},
    )


def _worst(drops: Mapping[str, float]) -> float:
    return max(0.0, *drops.values())


def _nothing(
    model: BoundModel,
    at_first: Mapping[str, float],
    damage: Mapping[str, tuple[float, float]],
    allowed: float,
) -> ExportError:
    task = max(at_first, key=lambda name: at_first[name])
    precision = next(each for each in precisions(model).values() if each != "fp32")
    least = min(damage, key=lambda name: damage[name])
    return ExportError(
        f"nothing can be {precision} where a task may lose {allowed:g} points: with all blocks {precision} "
        f"task {task!r} loses {at_first[task]:.2f}, with {least!r} alone some task loses "
        f"{damage[least][0]:.2f}; allow a larger drop, or export in fp32"
    )
