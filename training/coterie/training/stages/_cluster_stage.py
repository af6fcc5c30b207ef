"""The cluster layer: Network Clustering for Multi-task Learning (Gao et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from coterie.runtime.errors import TrainingError
from coterie.runtime.plan import StagePlan
from coterie.training.bank import Bank
from coterie.training.clustering import (
    Clustering,
    choose_clusters,
    cluster,
    clustering_of,
    match,
    recluster,
    spread,
)
from coterie.training.dispatch import State
from coterie.training.draws import Draw
from coterie.training.frozen import FrozenBank
from coterie.training.moments import Moments, group_mean
from coterie.training.similarity import GradientSimilarity, SimilarityKind, similarity_of
from coterie.training.stages._base import BankStage, plan_of
from coterie.training.stages._shared import run_assigned

ClusterMode = Literal["shadow", "literal"]

_BETTER = 0.98


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

    What tasks are compared by is a ``Similarity``. Compared by gradients they share one block through the
    warm-up as well; after it they are grouped and frozen at once, since gradients at different centroids
    cannot be compared. Compared by function, tasks that did not start alike have no meaningful mean: the
    centroid is then the weights of the task in the middle of its cluster, which the others take over.

    Attributes:
        clusters: K; None until it is chosen on dev.
        labels: ``[N]``, the cluster of each task; -1 during the warm-up.
        centers: ``[K, P]``, the centroids; none during the warm-up.
        tried: The mean dev loss of every K that was tried.
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
        clusters: int | None,
        max_clusters: int | None = None,
        by: SimilarityKind = "weights",
        mode: ClusterMode = "shadow",
        alike: bool = True,
        start: int = 0,
        warmup: int = 2,
        freeze_after: int | None = None,
        pull: float = 0.1,
        pull_warmup: int = 0,
        every: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(name, tasks, bank)
        self.clusters = clusters
        self.max_clusters = min(tasks, max_clusters or math.ceil(2 * math.sqrt(tasks)))
        self.similarity = similarity_of(by, bank)
        self.mode = mode
        self.start = start
        self.warmup = warmup
        self.freeze_after = freeze_after
        self.pull = pull
        self.pull_warmup = pull_warmup
        self.every = every
        self.seed = seed
        self.tried: dict[int, float] = {}
        if by != "weights":
            self.one_process = f"compares tasks by their {by}, of which each process sees a part"
        self._by = by
        self._averages = alike or by != "function"
        self._strength = pull
        self._seeing = False
        self.register_buffer("labels", torch.full((tasks,), -1, dtype=torch.int64))
        self.register_buffer("centers", torch.zeros(0, bank.block_parameters))
        self.register_buffer("frozen", torch.tensor(False))
        self.register_buffer("tied", torch.tensor(start > 0 or by == "gradients"))
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]

    @property
    def clustered(self) -> bool:
        """Whether the tasks have been grouped."""
        return bool(self.labels[0] >= 0)

    @property
    def ready(self) -> bool:
        """Whether the tasks have been grouped: without, the model is not what will be frozen."""
        return self.clustered

    @property
    def least_epochs(self) -> int:
        """How many epochs it takes to group the tasks: the first clustering comes after the warm-up."""
        return self.start + self.warmup + 1

    def forward(self, state: State, task: Tensor, draw: Draw | None = None) -> State:  # noqa: ARG002
        """Run each question's cluster, ``[S, ...] -> [P, ...]``."""
        if self.training and self._seeing and not self.frozen:
            self.similarity.see(state.values)
            self._seeing = False
        return run_assigned(self, state, *self._blocks(task))

    def _blocks(self, task: Tensor) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Return the block of each question ``[B]``, and the weights to use in place of the bank's own."""
        if self.frozen:
            return self.labels[task], None
        if self.tied:
            if self.training and isinstance(self.similarity, GradientSimilarity):
                return task, self.similarity.common(self.bank)
            return torch.zeros_like(task), self.bank.mean()
        if self.clustered and not self.training:
            return self.labels[task], self.bank.unflatten(self.centers)
        return task, self._shadowed() if self.clustered and self.mode == "shadow" else None

    def _shadowed(self) -> dict[str, Tensor]:
        """Return weights ``[N, ...]`` with the centroids' values, whose gradients reach the tasks' own."""
        centers = self.bank.unflatten(self.centers)
        return {
            name: centers[name][self.labels] + (weight - weight.detach())
            for name, weight in self.bank.weights.items()
        }

    def penalty(self) -> Tensor:
        """Return alpha L_c (equations 1 and 3): the pull towards the centroids."""
        if self.frozen or not self.clustered or self._strength == 0:
            return torch.zeros((), device=self.labels.device)
        centers = self.bank.unflatten(self.centers)
        distances = [
            ((weight - centers[name][self.labels]) ** 2).sum() for name, weight in self.bank.weights.items()
        ]
        return self._strength * torch.stack(distances).sum()

    def begin_epoch(self, epoch: int, moments: Moments) -> None:
        """Freeze when it is time; else look once for a better grouping from fresh starts."""
        self.tried = {}
        if self.frozen:
            return
        first = self.start + self.warmup
        self._strength = self.pull * (
            min(1.0, max(0, epoch - first) / self.pull_warmup) if self.pull_warmup else 1.0
        )
        self._seeing = epoch >= self.start
        if self._by == "gradients":
            if epoch >= first:
                self.freeze_assignment(moments)
            return
        if epoch >= self.start and self.tied:
            self._untie(moments)
        if self.freeze_after is not None and epoch >= self.freeze_after:
            self.freeze_assignment(moments)
        elif self.clustered and self.mode == "shadow":
            self._look_afresh(epoch, moments)

    def _untie(self, moments: Moments) -> None:
        """Let each task train its own weights from here on."""
        self.tied.fill_(False)
        for parameter in self.bank.weights.values():
            # What was remembered is the gradient of all tasks together: Adam would hardly move one of them.
            moments.forget(parameter)

    def _look_afresh(self, epoch: int, moments: Moments) -> None:
        rows, clusters = self._rows(), len(self.centers)
        current = clustering_of(rows, self.labels, clusters)
        fresh = cluster(rows, clusters, seed=self.seed + epoch)
        if fresh.inertia < _BETTER * current.inertia:
            self._take(match(fresh, self.labels), rows, moments)

    def settle(self, epoch: int, moments: Moments, dev_losses: Callable[[], Tensor]) -> None:
        """Choose K: the tasks are grouped into each number of clusters, and the model scored on dev."""
        if self.clusters is not None or self.clustered or epoch < self.start + self.warmup:
            return
        rows = self._rows()
        found: dict[int, Clustering] = {}

        def losses(clusters: int) -> Tensor:
            found[clusters] = cluster(rows, clusters, seed=self.seed)
            self.labels.fill_(-1)
            self._take(found[clusters], rows)
            return dev_losses()

        self.clusters, self.tried = choose_clusters(self.max_clusters, losses)
        self.labels.fill_(-1)
        self._take(found[self.clusters], rows, moments)

    def after_step(self, epoch: int, step: int, moments: Moments) -> None:
        """Group the tasks anew after an update of the weights (Algorithm 1, lines 5 to 8)."""
        if self.frozen or self.tied or epoch < self.start + self.warmup:
            return
        if self.clustered and step % self.every:
            # The centroids go with their tasks' weights; only who belongs to which waits.
            self.centers = group_mean(self.bank.flat(), self.labels, len(self.centers))
        else:
            self._group(moments)
        if self.mode == "literal":
            self._replace(self.labels >= 0, moments)

    def _group(self, moments: Moments | None) -> None:
        rows = self._rows()
        if self.clustered:
            self._take(recluster(rows, self.labels, len(self.centers)), rows, moments)
        else:
            self._take(cluster(rows, self._count(), seed=self.seed), rows, moments)

    def _rows(self) -> Tensor:
        return self.similarity.rows(self.bank)

    def _count(self) -> int:
        if self.clusters is None:
            raise TrainingError(
                f"stage {self.name!r} has no number of clusters yet: clusters: auto is decided by settle, on "
                "dev losses; give a number where there are none"
            )
        return self.clusters

    def _take(self, found: Clustering, rows: Tensor, moments: Moments | None = None) -> None:
        """Make a grouping of ``rows`` the current one; with ``moments``, tasks may take new weights."""
        joined = self.labels != found.labels
        self.labels.copy_(found.labels)
        if self._by == "weights":
            self.centers = found.centers
        elif self._averages:
            self.centers = group_mean(self.bank.flat(), self.labels, len(found.centers))
        else:
            self.centers = self._middles(found, rows, joined)
            if moments is not None:
                self._replace(joined, moments)

    def _middles(self, found: Clustering, rows: Tensor, joined: Tensor) -> Tensor:
        """Return each cluster's weights where tasks have no meaningful mean, ``[K, P]``.

        They are the mean of the tasks that stayed in it, or else of the task in the middle alone.
        """
        flat, clusters = self.bank.flat(), len(found.centers)
        # The tasks that joined are counted in a group of their own, the last.
        stayed = torch.where(joined, clusters, found.labels)
        centers = group_mean(flat, stayed, clusters + 1)[:-1]
        distance = ((rows - found.centers[found.labels]) ** 2).sum(dim=1)
        count = torch.bincount(stayed, minlength=clusters + 1)[:-1]
        for label in (count == 0).nonzero().flatten().tolist():
            own = torch.where(found.labels == label, distance, torch.inf)
            centers[label] = flat[own.argmin()]
        return centers

    def _replace(self, tasks: Tensor, moments: Moments) -> None:
        """Give the tasks of a mask ``[N]`` their centroids' weights and memory."""
        with torch.no_grad():
            for name, tensor in self.bank.unflatten(self.centers).items():
                parameter = self.bank.weights[name]
                parameter[tasks] = tensor[self.labels[tasks]]
                moments.average(parameter, self.labels, len(self.centers), tasks)

    def freeze_assignment(self, moments: Moments | None = None) -> None:
        """Make the assignment final: the bank holds K centroids from now on, nothing of the tasks' own."""
        if self.frozen:
            return
        if not self.clustered:
            self._group(moments)
        tensors = self.bank.unflatten(self.centers)
        for name, old in list(self.bank.weights.items()):
            new = nn.Parameter(tensors[name].clone())
            self.bank.weights[name] = new
            if moments is not None:
                moments.swap(old, new, self.labels)
        self.frozen.fill_(True)
        self.tied.fill_(False)
        self.centers = self.centers[:0].clone()
        self.similarity.forget()

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
        """Return L_c and the inertia relative to one cluster, while there are rows to compare.

        In the epoch that chose K, the dev loss of every number tried as well.
        """
        if self.frozen or not self.clustered:
            return {}
        rows = self._rows()
        current = clustering_of(rows, self.labels, len(self.centers))
        return {"clustering_loss": current.inertia, "spread": spread(rows, current)} | {
            f"dev_loss_of_{clusters}": loss for clusters, loss in self.tried.items()
        }


def _make_room(stage: ClusterStage, stored: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Take the form of stored weights before they are loaded: K centroids, K blocks once they are final."""
    centers = stored.get(f"{prefix}centers")
    if centers is not None:
        stage.centers = torch.zeros_like(centers, device=stage.centers.device)
    frozen = stored.get(f"{prefix}frozen")
    if frozen is None or not bool(frozen):
        return
    for name, old in list(stage.bank.weights.items()):
        tensor = stored.get(f"{prefix}bank.weights.{name}")
        if tensor is not None:
            stage.bank.weights[name] = nn.Parameter(old.detach()[: len(tensor)].clone())
