"""What a training step costs as k and M grow: only the experts drawn for a row are computed for it.

python -m benchmarks.gate_cost
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.common import side_by_side, write_result
from coterie.training.bank import Bank
from coterie.training.blocks import InputShape, MlpConfig
from coterie.training.dispatch import State
from coterie.training.stages import Draw, GatedStage

WIDTH, HIDDEN, ROWS, TASKS = 256, 512, 512, 20


def step(experts: int, density: int) -> Callable[[], None]:
    """Return a step, forward and backward, in which a row draws ``density`` experts on average."""
    torch.manual_seed(0)
    config = MlpConfig(widths=(HIDDEN, WIDTH))
    bank = Bank(lambda: config.build(InputShape(dims=(WIDTH,))), experts)
    gated = density < experts
    stage = GatedStage("experts", TASKS, bank, probability=density / experts if gated else 0.5, gated=gated)
    stage.train()
    inputs, row = torch.randn(ROWS, WIDTH), torch.arange(ROWS)
    task = torch.randint(TASKS, (ROWS,))
    generator = torch.Generator().manual_seed(0)

    def run() -> None:
        draw = Draw(generator, torch.zeros(ROWS))
        result = stage(State(inputs, row), task, draw).values
        (result.square().mean() + 0 * draw.log_probability.sum()).backward()
        stage.zero_grad(set_to_none=True)

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    by_density = {f"M=16 k={k}": step(16, k) for k in (1, 2, 4, 8, 16)}
    by_experts = {f"M={m} k=4": step(m, 4) for m in (8, 32, 64)}
    seconds = side_by_side({**by_density, **by_experts}, rounds=rounds)
    dense = seconds["M=16 k=16"]
    table = Table("step", "ms", "against dense M=16", box=None)
    for name, value in seconds.items():
        table.add_row(name, f"{value * 1e3:.1f}", f"{value / dense:.2f}")
    Console().print(table)
    ratios = {name: round(value / dense, 3) for name, value in seconds.items()}
    path = write_result(
        "gate_cost",
        {
            "what": f"forward and backward, {ROWS} rows, experts {WIDTH}-{HIDDEN}-{WIDTH}, one thread",
            "milliseconds": {name: round(value * 1e3, 2) for name, value in seconds.items()},
            "against_dense": ratios,
        },
    )
    Console().print(f"written: {path}")


if __name__ == "__main__":
    main()
