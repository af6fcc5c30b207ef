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

WIDTH, HIDDEN, TASKS = 256, 512, 20


def step(rows: int, experts: int, density: int) -> Callable[[], None]:
    """Return a step, forward and backward, in which a row draws ``density`` experts on average."""
    torch.manual_seed(0)
    config = MlpConfig(widths=(HIDDEN, WIDTH))
    bank = Bank(lambda: config.build(InputShape(dims=(WIDTH,))), experts)
    gated = density < experts
    stage = GatedStage("experts", TASKS, bank, probability=density / experts if gated else 0.5, gated=gated)
    stage.train()
    inputs, row = torch.randn(rows, WIDTH), torch.arange(rows)
    task = torch.randint(TASKS, (rows,))
    generator = torch.Generator().manual_seed(0)

    def run() -> None:
        draw = Draw(generator, torch.zeros(rows))
        result = stage(State(inputs, row), task, draw).values
        (result.square().mean() + 0 * draw.log_probability.sum()).backward()
        stage.zero_grad(set_to_none=True)

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    table = Table("rows", "M", "k", "ms", "against all 16 experts", box=None)
    results = []
    for rows in (512, 2048):
        cases = [(16, k) for k in (1, 2, 4, 8, 16)] + [(m, 4) for m in (8, 32, 64)]
        seconds = side_by_side({f"{m} {k}": step(rows, m, k) for m, k in cases}, rounds=rounds, warmup=1)
        for m, k in cases:
            taken, ratio = seconds[f"{m} {k}"], seconds[f"{m} {k}"] / seconds["16 16"]
            table.add_row(str(rows), str(m), str(k), f"{taken * 1e3:.1f}", f"{ratio:.2f}")
            results.append(
                {"rows": rows, "M": m, "k": k, "ms": round(taken * 1e3, 2), "against_all_16": round(ratio, 3)}
            )
    Console().print(table)
    what = f"forward and backward of a gated layer, experts {WIDTH}-{HIDDEN}-{WIDTH}, one thread"
    Console().print(f"written: {write_result('gate_cost', {'what': what, 'steps': results})}")


if __name__ == "__main__":
    main()
