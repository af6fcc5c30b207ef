"""The cluster layer's options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from coterie.training.bank import Bank
from coterie.training.blocks import Block
from coterie.training.similarity import SimilarityKind
from coterie.training.stages._base import Stage
from coterie.training.stages._cluster_stage import ClusterMode, ClusterStage
from coterie.training.stages._config import BlockStageConfig, Count, Epochs, NotNegative, Site


class ClusterConfig(BlockStageConfig):
    """A cluster layer (NCMTL): tasks with similar weights share their mean."""

    kind: Literal["cluster"] = "cluster"
    clusters: Count | Literal["auto"]
    """Number of centroids, K, or as many as there are tasks, where these are fewer; ``auto`` chooses it on
    dev, at the first clustering."""
    max_clusters: Count | None = None
    """Largest K that ``auto`` tries; twice the root of the number of tasks when not given."""
    by: SimilarityKind = "weights"
    """What tasks are compared by: their ``weights``, as in the paper; their ``gradients`` at a block that all
    of them share until they are grouped, once; or their ``function``, what their blocks answer."""
    mode: ClusterMode = "shadow"
    """``shadow`` keeps the tasks' own weights until the freeze; ``literal`` is Algorithm 1 as printed."""
    alike: bool = True
    """Whether all tasks start from the same weights; the paper starts each from its own."""
    start: Epochs | None = None
    """Epochs for which all tasks share one block here; when not given, until the cluster layers before this
    one have been clustered, so that tasks are compared behind clusters that stand."""
    warmup: Epochs = 2
    """Epochs of unclustered weights after that, before the first clustering."""
    freeze_after: Count | None = None
    """Epochs after which the assignment is final; never when not given."""
    pull: NotNegative = 0.1
    """alpha of equation 3: how strongly a task's weights are pulled to their centroid."""
    pull_warmup: Epochs = 0
    """Epochs, from the first clustering on, over which the pull rises from nothing to alpha."""
    every: Count = 1
    """Batches from one clustering to the next."""

    def stage(self, site: Site, make: Callable[[], Block]) -> Stage:
        """Make the stage."""
        tasks = len(site.tasks)
        return ClusterStage(
            site.name,
            tasks,
            Bank(make, tasks, alike=self.alike),
            clusters=None if self.clusters == "auto" else min(self.clusters, tasks),
            max_clusters=self.max_clusters,
            by=self.by,
            mode=self.mode,
            alike=self.alike,
            start=self._start(site.start),
            warmup=self.warmup,
            freeze_after=self.freeze_after,
            pull=self.pull,
            pull_warmup=self.pull_warmup,
            every=self.every,
            seed=site.seed,
        )

    def mistakes(self, site: Site) -> list[str]:
        """Return what does not fit the tasks or itself."""
        mistakes, start = [], self._start(site.start)
        if self.clusters != "auto" and self.max_clusters is not None:
            mistakes.append("max_clusters: is for clusters: auto; leave it out, or set clusters to auto")
        if self.clusters == "auto" and self.by == "gradients":
            mistakes.append(
                "clusters: auto compares centroids on dev, but tasks have none while they are compared by "
                "their gradients: give a number, or compare by weights or function"
            )
        if self.warmup == 0 and (self.clusters == "auto" or self.by == "gradients"):
            mistakes.append(
                "warmup: is 0, but tasks have to train before they can be compared: use at least 1 epoch"
            )
        if self.by == "gradients" and not self.alike:
            mistakes.append("alike: is false, but gradients are compared at one common block: leave it true")
        if self.freeze_after is not None and self.freeze_after <= start + self.warmup:
            mistakes.append(
                f"freeze_after: is {self.freeze_after}, but the first clustering comes after "
                f"{start} + {self.warmup} epochs (start + warmup): raise it, or lower warmup"
            )
        return mistakes

    def standing(self, start: int) -> int:
        """Return after how many epochs the tasks are clustered here and before."""
        return max(start, self._start(start) + self.warmup)

    def _start(self, standing: int) -> int:
        return standing if self.start is None else self.start
