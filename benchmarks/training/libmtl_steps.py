"""Training steps with LibMTL, run by ``benchmarks.training.steps`` with the interpreter that has it.

Takes its cases as JSON; prints their models' numbers of parameters. Then for each line with the number of a
case and of steps, prints the seconds that these steps took. Knows nothing of coterie.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.training.libmtl_side import build


def main(cases: list[dict[str, Any]]) -> None:
    """Make a model of each case, then take steps as asked."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = [training_step(case) for case in cases]
    print(json.dumps([parameters for _, parameters in made]), flush=True)
    for line in sys.stdin:
        case, steps = map(int, line.split())
        step, _ = made[case]
        began = time.perf_counter()
        for _ in range(steps):
            step()
        print(json.dumps(time.perf_counter() - began), flush=True)


def training_step(case: dict[str, Any]) -> tuple[Callable[[], None], int]:
    """Return a step as LibMTL's trainer makes it, without its data loaders and meters; and the parameters."""
    tasks = [str(number) for number in range(case["tasks"])]
    size, rows, own = case["size"], case["rows"], case["own_inputs"]
    model = build(case, tasks, [case["classes"]] * len(tasks), size, own_inputs=own).train()
    # One pass over each parameter, as coterie's trainer has it: what is compared is not the optimiser.
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-9, fused=True)
    inputs = torch.randn(len(tasks) if own else 1, rows, size)
    answers = torch.randint(case["classes"], (len(tasks), rows))

    def step() -> None:
        if own:
            scores = {task: model(inputs[number], task)[task] for number, task in enumerate(tasks)}
        else:
            scores = model(inputs[0])
        losses = [
            nn.functional.cross_entropy(scores[task], answers[number]) for number, task in enumerate(tasks)
        ]
        optimizer.zero_grad()
        model.backward(torch.stack(losses))
        optimizer.step()

    return step, sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
