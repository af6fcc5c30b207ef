"""A generator of data whose sharing is known: which experts each task mixes, and which clusters it is in.

A task's answer to an input x ~ N(0, I_D) goes through the same kinds of layers that a model may learn:

    h = x                                        or tanh(x W), a trunk that all tasks share
    z = sum over its experts of w_i tanh(h A_i)  or h P, one map for all, when there are no experts
    z = g(z Q_c), layer after layer              Q_c orthogonal, of the task's cluster c in that layer
    score = z (V + V_t)                          a head that differs a little from task to task

The first layer's maps Q_c are independent. A later layer's are variations of one map: by ``difference`` in
the second layer, by its square in the third, and so on.

Scores are standardised for each task; noise is added; a regression's target is the score, a classification's
the largest of its scores. ``g`` bends gently, so that later layers keep what earlier ones tell apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import polar

from coterie.runtime.manifest import TensorSpec
from coterie.runtime.tasks import TaskSpec
from coterie.training.data._config import PlantedConfig
from coterie.training.data._dataset import Dataset, DenseInputs, Ints, Split, Truth, checksum

Doubles = npt.NDArray[np.float64]
Generator = np.random.Generator

_SAMPLE = 4096
"""Inputs that the scores are standardised with."""


def load_planted(config: PlantedConfig) -> Dataset:
    """Return planted data, its truth included; the same configuration gives the same data."""
    generator = np.random.default_rng(config.seed)
    truth = plant_truth(config, generator)
    world = _World.draw(config, truth, generator)
    width = config.outputs
    if config.task_kind == "classification":
        labels = tuple(f"class_{number}" for number in range(width))
    else:
        labels = tuple(f"target_{number}" for number in range(width))
    tasks = tuple(
        TaskSpec(name=f"task_{number:0{len(str(config.tasks - 1))}d}", kind=config.task_kind, labels=labels)
        for number in range(config.tasks)
    )
    rows = {"train": config.train_rows, "dev": config.dev_rows, "test": config.test_rows}
    splits = {name: _split(config, world, count, generator) for name, count in rows.items()}
    spec = TensorSpec(name="inputs", dtype="float32", shape=(None, config.features))
    return Dataset(
        inputs=(spec,),
        tasks=tasks,
        splits=splits,
        sha256=checksum((spec,), tasks, splits, None),
        truth=truth,
    )


def plant_truth(config: PlantedConfig, generator: Generator) -> Truth:
    """Draw who shares with whom."""
    experts, weights = _expert_sets(config, generator)
    return Truth(
        assignments=cluster_tree(config.tasks, config.clusters, generator), experts=experts, weights=weights
    )


def cluster_tree(tasks: int, clusters: tuple[int, ...], generator: Generator) -> tuple[Ints, ...]:
    """Draw nested clusters of nearly equal sizes, from the coarsest layer to the finest, each ``[N]``."""
    layers: list[Ints] = []
    below = generator.permutation(tasks) % clusters[-1] if clusters else np.zeros(tasks, dtype=np.int64)
    for layer in reversed(range(len(clusters))):
        layers.append(below)
        if layer:
            parent = generator.permutation(clusters[layer]) % clusters[layer - 1]
            below = parent[below]
    return tuple(reversed(layers))


def _expert_sets(config: PlantedConfig, generator: Generator) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Draw each task's experts and their weights, both ``[N, M]``; all are used where possible."""
    shape = (config.tasks, config.experts)
    used = np.zeros(shape, dtype=np.int64)
    if not config.experts:
        return used, np.zeros(shape, dtype=np.float32)
    size = config.experts_per_task
    sets = config.expert_sets or config.tasks
    chosen = np.zeros((sets, config.experts), dtype=np.int64)
    count = np.zeros(config.experts)
    for number in range(sets):
        # The experts used least so far come first, in random order among equals.
        order = np.lexsort((generator.random(config.experts), count))
        chosen[number, order[:size]] = 1
        count += chosen[number]
    used = chosen[generator.permutation(config.tasks) % sets]
    weights = used * generator.uniform(0.5, 1.5, shape) / np.sqrt(size)
    return used, weights.astype(np.float32)


def _orthogonal(count: int, width: int, generator: Generator, difference: float | None = None) -> Doubles:
    """Draw orthogonal maps, ``[count, width, width]``: independent, or variations of one map."""
    drawn = generator.standard_normal((count, width, width)) / np.sqrt(width)
    if difference is not None:
        drawn = polar(generator.standard_normal((width, width)))[0] + difference * drawn
    return np.stack([polar(each)[0] for each in drawn])


def _bend(states: Doubles) -> Doubles:
    result: Doubles = np.where(states > 0, states, 0.25 * states)
    return result


@dataclass(frozen=True, kw_only=True)
class _World:
    """Every weight: trunk ``[D, H]``, experts ``[M, H, E]`` and offsets ``[M, E]``, layers, heads."""

    config: PlantedConfig
    truth: Truth
    trunk: Doubles | None
    experts: Doubles
    offsets: Doubles
    layers: tuple[Doubles, ...]
    heads: Doubles

    @classmethod
    def draw(cls, config: PlantedConfig, truth: Truth, generator: Generator) -> _World:
        """Draw the weights of a world with that truth."""
        wide = config.trunk or config.features
        trunk = None
        if config.trunk:
            trunk = (
                generator.standard_normal((config.features, config.trunk)) * 1.5 / np.sqrt(config.features)
            )
        count, width = max(1, config.experts), config.width
        return cls(
            config=config,
            truth=truth,
            trunk=trunk,
            experts=generator.standard_normal((count, wide, width)) * 1.5 / np.sqrt(wide),
            offsets=generator.standard_normal((count, width)) * 0.5,
            layers=tuple(
                _orthogonal(clusters, width, generator, config.difference**layer if layer else None)
                for layer, clusters in enumerate(config.clusters)
            ),
            heads=(
                generator.standard_normal((1, width, config.outputs))
                + config.head_difference * generator.standard_normal((config.tasks, width, config.outputs))
            )
            / np.sqrt(width),
        )

    def scores(self, task: int, inputs: Doubles) -> Doubles:
        """Return one task's scores, ``[n, D] -> [n, C]``, neither standardised nor noisy."""
        states = inputs if self.trunk is None else np.tanh(inputs @ self.trunk)
        if self.config.experts:
            mixed = np.zeros((len(inputs), self.config.width))
            for expert in np.flatnonzero(self.truth.experts[task]):
                weight = float(self.truth.weights[task, expert])
                mixed += weight * np.tanh(states @ self.experts[expert] + self.offsets[expert])
            states = mixed
        else:
            states = states @ self.experts[0]
        for maps, assignment in zip(self.layers, self.truth.assignments, strict=True):
            states = _bend(states @ maps[assignment[task]])
        result: Doubles = states @ self.heads[task]
        return result


def _split(config: PlantedConfig, world: _World, rows: int, generator: Generator) -> Split:
    blocks = 1 if config.shared_inputs else config.tasks
    inputs = generator.standard_normal((blocks, rows, config.features)).astype(np.float32)
    reference = np.random.default_rng(config.seed).standard_normal((_SAMPLE, config.features))
    targets = []
    for number in range(config.tasks):
        known = world.scores(number, reference)
        exact = world.scores(number, inputs[number % blocks].astype(np.float64))
        scores = (exact - known.mean(axis=0)) / np.maximum(known.std(axis=0), 1e-9)
        scores = scores + config.noise * generator.standard_normal(scores.shape)
        is_class = config.task_kind == "classification"
        targets.append(scores.argmax(axis=1)[:, None].astype(np.float64) if is_class else scores)
    task = np.repeat(np.arange(config.tasks), rows)
    row = np.tile(np.arange(rows), config.tasks) if config.shared_inputs else np.arange(config.tasks * rows)
    return Split(
        inputs=DenseInputs(inputs.reshape(-1, config.features)),
        row=row,
        task=task,
        target=np.concatenate(targets).astype(np.float32),
    )
