"""What a training step costs as k and M grow: only the experts drawn for a row are computed for it.

A whole step: forward, backward, the gates' gradient, and the update by Adam.

python -m benchmarks.gate_cost
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.common import side_by_side, write_result
from benchmarks.steps import training_step
from coterie.runtime.manifest import TensorSpec
from coterie.runtime.tasks import TaskSpec
from coterie.training import ModelConfig, build_model
from coterie.training.blocks import InputShape
from coterie.training.draws import GateEstimator

WIDTH, HIDDEN, TASKS = 256, 512, 20
CLAIM = 0.35
"""A step at k = M / 4 costs at most so much of the dense mixture's."""


def step(rows: int, experts: int, density: int, estimator: GateEstimator = "auto") -> Callable[[], None]:
    """Return a step of ``rows`` questions, each of which draws ``density`` of the experts on average."""
    gates = "learned" if density < experts else "all"
    stage = {
        "kind": "gated",
        "experts": experts,
        "gates": gates,
        "probability": min(density / experts, 0.5),
        "block": {"kind": "mlp", "widths": [HIDDEN, WIDTH]},
    }
    specs = [TaskSpec(name=f"task {t}", kind="classification", labels=("no", "yes")) for t in range(TASKS)]
    model = build_model(
        ModelConfig.model_validate({"stages": [stage]}),
        input=TensorSpec(name="inputs", dtype="float32", shape=(None, WIDTH)),
        shape=InputShape(dims=(WIDTH,)),
        tasks=specs,
    ).train()
    if gates == "learned":
        with torch.no_grad():
            model.gated_stages()[0].gate.logits.fill_(float(torch.logit(torch.tensor(density / experts))))
    return training_step(model, torch.randn(rows, WIDTH), classes=2, estimator=estimator)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table = Table("rows", "M", "k", "gates' gradient", "ms", "against all M experts", box=None)
    results = []
    for rows in (512, 2048):
        cases: list[tuple[int, int, GateEstimator]] = [(16, k, "auto") for k in (1, 2, 4, 8, 16)]
        cases += [(16, 4, name) for name in ("baseline", "leave_one_out", "disarm", "local")]
        cases += [(m, k, "auto") for m in (8, 32) for k in (m // 4, m)]
        runs = {str(case): step(rows, *case) for case in cases}
        seconds = side_by_side(runs, rounds=rounds, warmup=1)
        for m, k, name in cases:
            taken = seconds[str((m, k, name))]
            ratio = taken / seconds[str((m, m, "auto"))]
            table.add_row(str(rows), str(m), str(k), name, f"{taken * 1e3:.1f}", f"{ratio:.2f}")
            results.append(
                {
                    "rows": rows,
                    "M": m,
                    "k": k,
                    "estimator": name,
                    "ms": round(taken * 1e3, 2),
                    "against_all": round(ratio, 3),
                }
            )
    Console().print(table)
    quarter = [each for each in results if each["M"] == 4 * each["k"] and each["estimator"] == "auto"]
    worst = max(each["against_all"] for each in quarter if each["rows"] == 2048)
    Console().print(f"k = M / 4 at 2,048 rows: at most {worst:.2f} of the dense step (claimed: {CLAIM})")
    what = f"whole training step, gated layer of experts {WIDTH}-{HIDDEN}-{WIDTH} and 20 heads, one thread"
    result = {"what": what, "claim": CLAIM, "worst": worst, "steps": results}
    Console().print(f"written: {write_result('gate_cost', result)}")


if __name__ == "__main__":
    main()
