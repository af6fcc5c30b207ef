"""The cluster layer: Network Clustering for Multi-task Learning (Gao et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from coterie.runtime.plan import StagePlan
from coterie.training.bank import Bank
from coterie.training.blocks import Block
from coterie.training.clustering import Clustering, centers_of, cluster, match, recluster, spread
from coterie.training.dispatch import State
from coterie.training.frozen import FrozenBank
from coterie.training.moments import Moments, group_mean
from coterie.training.stages._base import BankStage, Draw, Stage, plan_of
from coterie.training.stages._config import BlockStageConfig, Count, Epochs, NotNegative, Site
from coterie.training.stages._shared import run_assigned

ClusterMode = Literal["shadow", "literal"]

_BETTER = 0.98


class ClusterConfig(BlockStageConfig):
    """A cluster layer (NCMTL): tasks with similar weights share their mean."""

    kind: Literal["cluster"] = "cluster"
    clusters: Count
    """Number of centroids, K."""
    mode: ClusterMode = "shadow"
    """``shadow`` keeps the tasks' own weights until the freeze; ``literal`` is Algorithm 1 as printed."""
    start: Epochs | None = None
    """Epochs for which all tasks share one block here; when not given, until the cluster layers before this
    one have been clustered, so that tasks are compared behind clusters that stand."""
    warmup: Epochs = 2
    """Epochs of unclustered weights after that, before the first clustering."""
    freeze_after: Count | None = None
    """Epochs after which the assignment is final; never when not given."""
    pull: NotNegative = 0.1
    """alpha of equation 3: how strongly a task's weights are pulled to their centroid."""
    every: Count = 1
    """Batches from one clustering to the next."""

    def stage(self, site: Site, make: Callable[[], Block]) -> Stage:
        """Make the stage; all its tasks start alike."""
        tasks = len(site.tasks)
        return ClusterStage(
            site.name,
            tasks,
            Bank(make, tasks, alike=True),
            clusters=self.clusters,
            mode=self.mode,
            start=self._start(site.start),
            warmup=self.warmup,
            freeze_after=self.freeze_after,
            pull=self.pull,
            every=self.every,
            seed=site.seed,
        )

    def mistakes(self, site: Site) -> list[str]:
        """Return what does not fit the tasks or itself."""
        mistakes, tasks, start = [], len(site.tasks), self._start(site.start)
        if self.clusters > tasks:
            mistakes.append(f"clusters: is {self.clusters}, but the data has {tasks} tasks: use at most that")
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


class ClusterStage(BankStage):
    """Tasks whose weights are similar share their mean: N specific weights w'_j, K centroids c_k.

    Every task starts from the same weights, and the tasks move as one for ``start`` epochs: a later layer
    waits for the earlier ones, since weights behind different centroids cannot be compared. For ``warmup``
    epochs each task then trains its own, unclustered. Then KMeans groups them after every batch, until
    ``freeze_after`` epochs, when the K centroids become the weights and the assignment is final (section 3.1
    of the paper freezes after four epochs).

    While tasks are being grouped, by ``mode``:

    - ``shadow``: a task computes with its centroid, but its own weights w'_j live on: they take the gradient
      found at the centroid and the pull 2 alpha (w'_j - c_k) of equation 1. A task can so leave its cluster.
    - ``literal``: Algorithm 1 as printed: w'_j is replaced by c_k after every batch. The tasks of a cluster
      then differ by one gradient step only, so that the first assignment practically never changes.

    Attributes:
        labels: ``[N]``, the cluster of each task; -1 during the warm-up.
        centers: ``[K, P]``, the centroids.
    """

    kind = "cluster"
    labels: Tensor
    centers: Tensor
    frozen: Tensor
    tied: Tensor

    def __init__(
        self,
        name: str,
        tasks: int,
        bank: Bank,
        *,
        clusters: int,
        mode: ClusterMode = "shadow",
        start: int = 0,
        warmup: int = 2,
        freeze_after: int | None = None,
        pull: float = 0.1,
        every: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(name, tasks, bank)
        self.clusters = clusters
        self.mode = mode
        self.start = start
        self.warmup = warmup
        self.freeze_after = freeze_after
        self.pull = pull
        self.every = every
        self.seed = seed
        self.register_buffer("labels", torch.full((tasks,), -1, dtype=torch.int64))
        self.register_buffer("centers", torch.zeros(clusters, bank.block_parameters))
        self.register_buffer("frozen", torch.tensor(False))
        self.register_buffer("tied", torch.tensor(start > 0))

    @property
    def clustered(self) -> bool:
        """Whether the tasks have been grouped."""
        return bool(self.labels[0] >= 0)

    def forward(self, state: State, task: Tensor, draw: Draw | None = None) -> State:  # noqa: ARG002
        """Run each question's cluster, ``[S, ...] -> [P, ...]``."""
        if self.frozen:
            return run_assigned(self, state, self.labels[task])
        if self.tied:
            return run_assigned(self, state, torch.zeros_like(task), self._mean())
        if not self.clustered:
            return run_assigned(self, state, task)
        if not self.training:
            return run_assigned(self, state, self.labels[task], self.bank.unflatten(self.centers))
        if self.mode == "literal":
            return run_assigned(self, state, task)
        return run_assigned(self, state, task, self._shadowed())

    def _mean(self) -> dict[str, Tensor]:
        """Return all tasks' mean weights ``[1, ...]``, whose whole gradient reaches every task's own."""
        return {
            name: weight.detach().mean(dim=0, keepdim=True)
            + (weight - weight.detach()).sum(dim=0, keepdim=True)
            for name, weight in self.bank.weights.items()
        }

    def _shadowed(self) -> dict[str, Tensor]:
        """Return weights ``[N, ...]`` with the centroids' values, whose gradients reach the tasks' own."""
        return {
            name: group_mean(weight.detach(), self.labels, self.clusters)[self.labels]
            + (weight - weight.detach())
            for name, weight in self.bank.weights.items()
        }

    def penalty(self) -> Tensor:
        """Return alpha L_c (equations 1 and 3): the pull towards the centroids."""
        if self.frozen or not self.clustered or self.pull == 0:
            return torch.zeros(())
        loss = torch.zeros(())
        for weight in self.bank.weights.values():
            center = group_mean(weight.detach(), self.labels, self.clusters)[self.labels]
            loss = loss + ((weight - center) ** 2).sum()
        return self.pull * loss

    def begin_epoch(self, epoch: int, moments: Moments) -> None:
        """Freeze when it is time; else look once for a better grouping from fresh starts."""
        if self.frozen:
            return
        if epoch >= self.start:
            self.tied.fill_(False)
        if self.freeze_after is not None and epoch >= self.freeze_after:
            self.freeze_assignment(moments)
        elif self.clustered and self.mode == "shadow":
            current = self._current()
            fresh = cluster(self.bank.flat().numpy(), self.clusters, seed=self.seed + epoch)
            if fresh.inertia < _BETTER * current.inertia:
                self._take(match(fresh, current))

    def after_step(self, epoch: int, step: int, moments: Moments) -> None:
        """Group the tasks anew after an update of the weights (Algorithm 1, lines 5 to 8)."""
        if self.frozen or epoch < self.start + self.warmup:
            return
        weights = self.bank.flat().numpy()
        if self.clustered and step % self.every:
            # The centroids go with their tasks' weights; only who belongs to which waits.
            self.centers.copy_(
                torch.from_numpy(centers_of(weights, self.labels.numpy(), self.centers.numpy()))
            )
            return
        if self.clustered:
            self._take(recluster(weights, self._current(), seed=self.seed))
        else:
            self._take(cluster(weights, self.clusters, seed=self.seed))
        if self.mode == "literal":
            self._replace(moments)

    def freeze_assignment(self, moments: Moments | None = None) -> None:
        """Make the assignment final: the bank holds K centroids from now on."""
        if self.frozen:
            return
        if not self.clustered:
            self._take(cluster(self.bank.flat().numpy(), self.clusters, seed=self.seed))
        tensors = self.bank.unflatten(self.centers)
        for name, old in list(self.bank.weights.items()):
            new = nn.Parameter(tensors[name].clone())
            self.bank.weights[name] = new
            if moments is not None:
                moments.swap(old, new, self.labels)
        self.frozen.fill_(True)

    def shrink(self) -> None:
        """Give the bank the K rows of a frozen stage, before a frozen checkpoint's weights are loaded."""
        for name, old in list(self.bank.weights.items()):
            self.bank.weights[name] = nn.Parameter(old.detach()[: self.clusters].clone())
        self.frozen.fill_(True)

    def plan(self) -> StagePlan:
        """Return the plan: the centroid of each task's cluster."""
        if self.tied:
            return plan_of(self, [[0]] * self.tasks)
        if not self.clustered:
            # Nothing was grouped yet: every task's own weights are what the model computes with.
            return plan_of(self, [[task] for task in range(self.tasks)])
        return plan_of(self, [[label] for label in self.labels.tolist()], trained=self.tasks)

    def frozen_bank(self) -> FrozenBank:
        """Return the used centroids."""
        bank = super().frozen_bank()
        if self.frozen or not self.clustered:
            return bank
        tensors = self.bank.unflatten(self.centers)
        return FrozenBank(
            template=bank.template,
            tensors=tuple(
                self.bank.name_tensors({name: tensor[block.source] for name, tensor in tensors.items()})
                for block in self.plan().blocks
            ),
        )

    def report(self) -> dict[str, float]:
        """Return L_c and the inertia relative to one cluster, while there are weights to compare."""
        if self.frozen or not self.clustered:
            return {}
        current = self._current()
        return {"clustering_loss": current.inertia, "spread": spread(self.bank.flat().numpy(), current)}

    def _current(self) -> Clustering:
        labels, centers = self.labels.numpy(), self.centers.numpy()
        inertia = float(((self.bank.flat().numpy() - centers[labels]) ** 2).sum())
        return Clustering(labels, centers, inertia)

    def _take(self, clustering: Clustering) -> None:
        self.labels.copy_(torch.from_numpy(clustering.labels))
        self.centers.copy_(torch.from_numpy(clustering.centers))

    def _replace(self, moments: Moments) -> None:
        with torch.no_grad():
            for name, tensor in self.bank.unflatten(self.centers).items():
                parameter = self.bank.weights[name]
                parameter.copy_(tensor[self.labels])
                moments.average(parameter, self.labels, self.clusters)
