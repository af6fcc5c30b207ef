"""Which experts to keep at the freeze: one run's gates, fixed in every way that the paper compares.

python -m benchmarks.training.at_freeze RUN

Nothing is trained: the run's best weights are scored on its dev split.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from benchmarks.common import write_result
from coterie.training import load_data, load_run
from coterie.training.loop.batches import BatchSource
from coterie.training.loop.evaluate import evaluate
from coterie.training.loop.losses import QuestionLoss
from coterie.training.stages.gates import AtFreeze, BernoulliGate


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run with learned gates")
    folder = parser.parse_args().run
    run = load_run(folder)
    gates = [stage.gate for stage in run.model.gated_stages() if isinstance(stage.gate, BernoulliGate)]
    if not gates:
        parser.error(f"{folder} has no gated layer whose gates are learned")
    source = BatchSource(load_data(run.config.data).splits["dev"], len(run.data.tasks))
    loss = QuestionLoss(run.data.tasks, run.model.head.scale)
    table, rows = Table("at the freeze", "experts a task", "dev metric", "dev loss", box=None), []
    for choice in get_args(AtFreeze):
        for gate in gates:
            gate.at_freeze = choice
        scores = evaluate(run.model, source, run.data.tasks, loss)
        kept = [float(stage.selection().sum(dim=1).float().mean()) for stage in run.model.gated_stages()]
        experts = sum(kept) / len(kept)
        table.add_row(choice, f"{experts:.2f}", f"{scores.metric:.4f}", f"{scores.loss:.4f}")
        rows.append({"at_freeze": choice, "experts": experts, "dev": scores.metric, "loss": scores.loss})
    Console().print(table)
    what = f"run {run.config.name}, {len(run.data.tasks)} tasks, scored on dev without further training"
    Console().print(f"written: {write_result('at_freeze', {'what': what, 'choices': rows})}")


if __name__ == "__main__":
    main()
