"""How far each estimate of the gates' gradient is from the exact one, and what it costs.

A gated layer of 6 experts, half of them open, trained a little on scikit-learn's digits. The exact gradient
of a batch is computed over all 2^6 sets of gates; each estimator then draws many times for the same batch.

python -m benchmarks.training.gate_gradients
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.common import write_result
from coterie.training import MultiTaskModel, build_model, load_data, load_run_config
from coterie.training.blocks import InputShape
from coterie.training.draws import BaselineTracker, Draw, GateEstimator
from coterie.training.loop.batches import Batch, BatchSource
from coterie.training.loop.losses import QuestionLoss
from coterie.training.loop.objective import Objective

EXPERTS, ROWS, WARMUP = 6, 64, 60
STAGES = [
    {"kind": "hard", "block": {"kind": "linear", "width": 32}},
    {"kind": "gated", "experts": EXPERTS, "block": {"kind": "linear", "width": 16}, "mixture": "mean"},
]
CASES: list[tuple[GateEstimator, int]] = [
    ("score", 1),
    ("baseline", 1),
    *[("leave_one_out", samples) for samples in (2, 4, 8)],  # type: ignore[list-item]
    *[("disarm", samples) for samples in (2, 4, 8)],  # type: ignore[list-item]
    ("local", 1),
]


class _Given(Draw):
    """One given set of gates for every question."""

    def __init__(self, gates: Tensor, questions: int) -> None:
        super().__init__(torch.Generator(), questions)
        self._given = gates

    def bernoulli(self, logits: Tensor) -> Tensor:
        return self._given.expand(len(logits), -1)

    def _advantage(self, losses: Tensor, weight: Tensor, task: Tensor) -> Tensor:
        del weight, task
        return losses


def exact(model: MultiTaskModel, loss: QuestionLoss, batch: Batch) -> Tensor:
    """Return the gradient of the expected loss with respect to the logits, over all sets of gates."""
    logits = model.gated_stages()[0].gate.logits
    p = torch.sigmoid(logits)[batch.task]
    expected = torch.zeros(())
    for bits in itertools.product([False, True], repeat=EXPERTS):
        gates = torch.tensor(bits)
        with torch.no_grad():
            losses, _ = loss(
                model(batch.inputs, batch.row, batch.task, _Given(gates, len(batch.task))),
                batch.target,
                batch.task,
            )
        expected = expected + (torch.where(gates, p, 1 - p).prod(dim=1) * losses).mean()
    return torch.autograd.grad(expected, logits)[0]


def measure(
    case: tuple[GateEstimator, int],
    model: MultiTaskModel,
    loss: QuestionLoss,
    source: BatchSource,
    steps: int,
) -> dict[str, Any]:
    """Return an estimator's total variance, its mean cosine to the exact gradient, and its time a step."""
    name, samples = case
    shuffle = np.random.default_rng(7)
    batch = source.batch(next(source.epoch(ROWS, shuffle)))
    wanted = exact(model, loss, batch)
    tracker = BaselineTracker(len(model.tasks))
    with torch.no_grad():
        known, _ = loss(model.eval()(batch.inputs, batch.row, batch.task), batch.target, batch.task)
        tracker.update(known, batch.task)
    model.train()
    objective = Objective(
        model, loss, torch.Generator().manual_seed(1), tracker, estimator=name, samples=samples
    )
    found, began = [], time.perf_counter()
    logits = model.gated_stages()[0].gate.logits
    for _ in range(steps):
        outcome = objective(batch)
        model.zero_grad()
        (outcome.loss() + outcome.extra).backward()  # type: ignore[no-untyped-call]
        found.append(torch.zeros(()) if logits.grad is None else logits.grad.clone())
    each = torch.stack(found).flatten(1)
    cosine = torch.nn.functional.cosine_similarity(each, wanted.flatten().unsqueeze(0))
    return {
        "estimator": name,
        "samples": samples,
        "variance": float(each.var(dim=0).sum()),
        "cosine": round(float(cosine.mean()), 3),
        "error_of_the_mean": round(float((each.mean(dim=0) - wanted.flatten()).norm() / wanted.norm()), 3),
        "ms": round(1e3 * (time.perf_counter() - began) / steps, 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    config = load_run_config("digits")
    data = load_data(config.data)
    model = build_model(
        type(config.model).model_validate({"stages": STAGES}),
        input=data.inputs[0],
        shape=InputShape(dims=data.inputs[0].shape[1:]),
        tasks=data.tasks,
    ).train()
    with torch.no_grad():
        model.gated_stages()[0].density_penalty = 0.0
        model.gated_stages()[0].begin_epoch(0, None)  # type: ignore[arg-type]
    loss = QuestionLoss(data.tasks, model.head.scale)
    source = BatchSource(data.splits["train"], len(data.tasks))
    weights = [each for name, each in model.named_parameters() if not name.endswith("logits")]
    optimizer = torch.optim.Adam(weights, lr=1e-3)
    objective = Objective(model, loss, torch.Generator().manual_seed(0), BaselineTracker(len(data.tasks)))
    for questions in itertools.islice(source.epoch(ROWS // 4, np.random.default_rng(0)), WARMUP):
        optimizer.zero_grad()
        objective(source.batch(questions)).loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    rows = [measure(case, model, loss, source, steps) for case in CASES]
    table = Table("estimator", "sets", "total variance", "cosine", "error of the mean", "ms a step", box=None)
    for row in rows:
        table.add_row(
            row["estimator"], str(row["samples"]), f"{row['variance']:.2e}", *map(str, list(row.values())[3:])
        )
    Console().print(table)
    what = f"gradient of the gates' logits, digits, {len(data.tasks)} tasks, {EXPERTS} experts, {ROWS} inputs"
    Console().print(f"written: {write_result('gate_gradients', {'what': what, 'estimators': rows})}")


if __name__ == "__main__":
    main()
