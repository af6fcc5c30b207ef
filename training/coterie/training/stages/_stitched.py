"""Columns that learn what to take from each other: cross-stitch and sluice networks, low supervision."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from coterie.runtime.errors import ConfigError
from coterie.training.bank import Bank
from coterie.training.blocks import AnyBlockConfig, InputShape, build_block
from coterie.training.stages._base import Stage
from coterie.training.stages._config import Count, NotNegative, Positive, Site, StageConfig
from coterie.training.stages._stitched_columns import Start, Stitched
from coterie.training.stages._stitched_stage import StitchedStage


class StitchedConfig(StageConfig):
    """Columns of layers: every task's own, mixed after each layer, or one column read at several depths."""

    kind: Literal["stitched"] = "stitched"
    layers: Annotated[tuple[AnyBlockConfig, ...], Field(min_length=1)]
    """The architecture of each layer of a column, or with subspaces, of one subspace of it."""
    columns: Literal["tasks", "one"] = "tasks"
    """A column for each task, or one for all."""
    subspaces: Count = 1
    """Parts of a layer that are mixed apart (sluice networks: 2); a column's state is all in a row."""
    alpha: Start = "imbalanced"
    """The mixture of columns at the start: the same of each, or 0.9 of its own subspace."""
    skip: bool = False
    """Whether a task reads a learned mixture (beta) of all layers; otherwise one layer."""
    beta: Start = "imbalanced"
    """That mixture at the start: the same of each layer, or 0.9 of the last."""
    depth: dict[str, Count] = Field(default_factory=dict)
    """The layer that a task reads, from 1, by its name or a pattern like ``pos*``; others read the last."""
    orthogonality: NotNegative = 0.0
    """Price of subspaces of a layer whose weights point the same way."""
    mix_rate: Positive = 10.0
    """Learning rate of alpha and beta, in multiples of the stage's."""

    def mistakes(self, site: Site) -> list[str]:
        """Return what is wrong whatever the states' shape."""
        found = super().mistakes(site)
        names = [task.name for task in site.tasks]
        for pattern, layer in self.depth.items():
            if layer > len(self.layers):
                found.append(f"depth.{pattern}: there is no layer {layer}, but {len(self.layers)}")
            if not any(fnmatchcase(name, pattern) for name in names):
                found.append(f"depth.{pattern}: no task is called that; there are {', '.join(names[:10])}")
        if self.depth and self.skip:
            found.append("depth: a task reads all layers with skip: true; leave one of the two out")
        if self.orthogonality and self.subspaces == 1:
            found.append("orthogonality: is between subspaces; set subspaces to 2")
        return found

    def build(self, site: Site) -> tuple[Stage, InputShape]:
        """Make the stage; return it with the shape of a column's state."""
        names = [task.name for task in site.tasks]
        own = self.columns == "tasks"
        columns = len(names) if own else 1
        layers, shapes = self._layers(site.shape, columns * self.subspaces)
        depths = [self._depth(name) for name in names]
        if len({shapes[layer] for layer in (range(len(layers)) if self.skip else depths)}) > 1:
            raise ConfigError("layers: what tasks read differs in size: make those layers' results alike")
        reads = [(number if own else 0, depth) for number, depth in enumerate(depths)]
        distinct = sorted(set(reads))
        block = Stitched(
            layers,
            columns=columns,
            subspaces=self.subspaces,
            axis=_feature_axis(shapes[0]),
            reads=distinct,
            alpha=self.alpha,
            readers=len(names) if self.skip else 0,
            beta=self.beta,
            orthogonality=self.orthogonality,
            mix_rate=self.mix_rate,
        )
        column = range(len(names)) if self.skip else [distinct.index(read) for read in reads]
        return StitchedStage(site.name, len(names), block, list(column)), shapes[depths[0]]

    def _layers(self, shape: InputShape, blocks: int) -> tuple[list[Bank], list[InputShape]]:
        """Return the layers, and the shape of a column's state after each."""
        layers, shapes = [], []
        for number, config in enumerate(self.layers):
            try:
                _, following = build_block(config, shape)
                axis = _feature_axis(following)
            except ConfigError as error:
                raise ConfigError(f"layers.{number}: {error}") from error
            layers.append(Bank(partial(config.build, shape), blocks))
            dims = list(following.dims)
            dims[axis] = (dims[axis] or 0) * self.subspaces
            shape = replace(following, dims=tuple(dims))
            shapes.append(shape)
        return layers, shapes

    def _depth(self, task: str) -> int:
        """Return the layer that a task reads, from 0; the last pattern counts that fits."""
        found = [layer for pattern, layer in self.depth.items() if fnmatchcase(task, pattern)]
        return min([len(self.layers), *found[-1:]]) - 1


def _feature_axis(shape: InputShape) -> int:
    """Return the axis of features: channels of images, the last of anything else."""
    if shape.dims[-1] is None:
        raise ConfigError(f"columns mix features, but the states are {shape}: use a layer that gives vectors")
    return -3 if len(shape.dims) == 3 and None not in shape.dims else -1
