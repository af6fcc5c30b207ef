"""A model with planted sharing: who shares what is drawn as for the planted data, weights are untrained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coterie.runtime.manifest import TensorSpec
from coterie.runtime.plan import BlockPlan, SharingPlan, StageKind, StagePlan
from coterie.runtime.tasks import TaskSpec
from coterie.training.blocks import Block, BlockConfig, InputShape, LinearConfig, LinearHead
from coterie.training.data import PlantedConfig
from coterie.training.data._planted import plant_truth
from coterie.training.frozen import FrozenBank, FrozenModel

FEATURES = 64
CLASSES = 4
SEED = 0

Uses = Sequence[dict[int, float]]
"""For each task its blocks and their mixture weights."""


def planted_model(
    tasks: int = 1000,
    *,
    clusters: tuple[int, ...] = (5, 20, 50),
    experts: int = 100,
    experts_per_task: int = 2,
    width: int = 256,
    block: BlockConfig | None = None,
    seed: int = SEED,
) -> FrozenModel:
    """Return a frozen model: a trunk, experts, cluster layers, and a linear head for each task.

    Args:
        tasks: N.
        clusters: K of each cluster layer.
        experts: M.
        experts_per_task: k, for every task.
        width: Size of every state.
        block: What each block is; one layer of that width, if not given.
        seed: Of the weights; who shares what is the same for all.
    """
    truth = plant_truth(
        PlantedConfig(
            tasks=tasks, clusters=clusters, experts=experts, experts_per_task=experts_per_task, seed=SEED
        ),
        np.random.default_rng(SEED),
    )
    torch.manual_seed(seed)
    maker = _Maker(tasks)
    layer = block or LinearConfig(width=width, activation="tanh")
    inner = InputShape(dims=(width,))
    maker.add("trunk", "hard", lambda: layer.build(InputShape(dims=(FEATURES,))), [{0: 1.0}] * tasks)
    if experts:
        mixtures = [
            {int(expert): float(own[expert]) for expert in np.flatnonzero(used)}
            for used, own in zip(truth.experts, truth.weights, strict=True)
        ]
        maker.add("experts", "gated", lambda: layer.build(inner), mixtures)
    for number, assignment in enumerate(truth.assignments, start=1):
        maker.add(
            f"clusters{number}",
            "cluster",
            lambda: layer.build(inner),
            [{int(own): 1.0} for own in assignment],
        )
    maker.add("heads", "head", lambda: LinearHead(width, CLASSES), [{task: 1.0} for task in range(tasks)])
    return maker.model()


def planted_inputs(rows: int = 64) -> npt.NDArray[np.float32]:
    """Return inputs ``[rows, FEATURES]``, x ~ N(0, I)."""
    return np.random.default_rng(SEED).standard_normal((rows, FEATURES)).astype(np.float32)


def task_by_task(model: FrozenModel) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return a model's answers to questions, each task's computed in one batch."""

    def answer(inputs: Tensor, row: Tensor, task: Tensor) -> Tensor:
        scores = torch.zeros((len(row), model.width))
        for number in task.unique().tolist():
            mine = task == number
            own = model.scores(number, inputs[row[mine]])
            scores[mine, : own.shape[1]] = own
        return scores

    return answer


def block_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return the bytes of one block's tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def weight_bytes(model: FrozenModel) -> int:
    """Return the bytes of all blocks' tensors."""
    return sum(block_bytes(tensors) for bank in model.banks for tensors in bank.tensors)


def same_files(first: Path, second: Path) -> bool:
    """Return whether two folders hold the same files, byte for byte."""
    names = [path.name for path in sorted(first.iterdir())]
    if names != [path.name for path in sorted(second.iterdir())]:
        return False
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


class _Maker:
    """Collects stages with fresh weights."""

    def __init__(self, tasks: int) -> None:
        digits = len(str(tasks - 1))
        labels = tuple(f"class_{number}" for number in range(CLASSES))
        self._tasks = tuple(
            TaskSpec(name=f"task_{number:0{digits}d}", kind="classification", labels=labels)
            for number in range(tasks)
        )
        self._stages: list[StagePlan] = []
        self._banks: list[FrozenBank] = []

    def add(self, name: str, kind: StageKind, build: Callable[[], Block], uses: Uses) -> None:
        count = max(max(used) for used in uses) + 1
        tensors = tuple(_weights(build()) for _ in range(count))
        self._stages.append(
            StagePlan(
                name=name,
                kind=kind,
                trained_blocks=count,
                blocks=tuple(
                    BlockPlan(
                        name=f"{name}/{index}",
                        source=index,
                        parameters=sum(tensor.numel() for tensor in own.values()),
                    )
                    for index, own in enumerate(tensors)
                ),
                uses=tuple(tuple(used) for used in uses),
                weights=tuple(tuple(used.values()) for used in uses),
            )
        )
        self._banks.append(FrozenBank(template=build().eval(), tensors=tensors))

    def model(self) -> FrozenModel:
        plan = SharingPlan(tasks=tuple(task.name for task in self._tasks), stages=tuple(self._stages))
        spec = TensorSpec(name="inputs", dtype="float32", shape=(None, FEATURES))
        return FrozenModel(inputs=(spec,), tasks=self._tasks, plan=plan, banks=tuple(self._banks))


def _weights(block: Block) -> dict[str, Tensor]:
    """Return a block's fresh weights; heads begin at zero, so theirs are drawn."""
    named = {name: tensor.detach() for name, tensor in block.named_parameters()}
    if isinstance(block, LinearHead):
        named = {name: torch.randn(tensor.shape) / tensor.shape[0] ** 0.5 for name, tensor in named.items()}
    return named
