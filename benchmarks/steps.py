"""One whole training step of a model: forward, backward, the gates' gradient, the update."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from coterie.training import MultiTaskModel
from coterie.training.draws import BaselineTracker, GateEstimator
from coterie.training.loop.batches import Batch
from coterie.training.loop.losses import QuestionLoss
from coterie.training.loop.objective import Objective


def training_step(
    model: MultiTaskModel,
    inputs: Tensor,
    *,
    classes: int,
    estimator: GateEstimator = "auto",
    samples: int = 2,
    row: Tensor | None = None,
    task: Tensor | None = None,
) -> Callable[[], None]:
    """Return a step on ``inputs [R, ...]``, each asked of a random task; it hardly changes the weights.

    Args:
        model: The model, in training mode.
        inputs: What is asked about.
        classes: Number of classes of every task.
        estimator: How the gates' gradient is estimated.
        samples: Sets of gates drawn for each question.
        row: The input ``[B]`` of each question, in place of one question about each.
        task: The questions' tasks ``[B]``, in place of random ones.
    """
    row = torch.arange(len(inputs)) if row is None else row
    task = torch.randint(len(model.tasks), (len(row),)) if task is None else task
    rows = len(row)
    # So slow that every step finds the gates as they were.
    learned = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=1e-9, fused=True)
    objective = Objective(
        model,
        QuestionLoss(model.tasks, model.head.scale),
        torch.Generator().manual_seed(0),
        BaselineTracker(len(model.tasks)),
        estimator=estimator,
        samples=samples,
        asked=rows / len(inputs),
    )
    batch = Batch(
        inputs=inputs,
        row=row,
        task=task,
        target=torch.randint(classes, (rows, 1)).float(),
        weight=torch.ones(rows),
        question=np.arange(rows),
        place=torch.arange(rows),
        whole=rows,
    )

    def run() -> None:
        outcome = objective(batch)
        optimizer.zero_grad()
        (outcome.loss() + outcome.extra).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return run
