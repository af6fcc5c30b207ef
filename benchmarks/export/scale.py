"""A thousand tasks, a hundred experts and three cluster layers: what an export costs, and the next one.

python -m benchmarks.export.scale
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console

from benchmarks.common import write_result
from benchmarks.export.planted import planted_inputs, planted_model, same_files, task_by_task, weight_bytes
from coterie.exporter import About, export
from coterie.runtime.manifest import Manifest, Provenance
from coterie.training.frozen import FrozenBank, FrozenModel

MEBIBYTE = 1 << 20


class Phases:
    """Adds up the seconds between an export's lines of progress, by their first word."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = self._last = time.perf_counter()
        self._phase = "preparing"
        self.seconds: dict[str, float] = {}
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        """Note that another phase begins."""
        now = time.perf_counter()
        self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._last
        self._phase, self._last = line.split(maxsplit=1)[0], now
        self.lines.append(line)
        self._console.print(f"{now - self._began:6.1f} s  {line}")

    def done(self) -> dict[str, float]:
        """End the last phase and return the seconds of each, and of all."""
        self("done")
        return {**{key: round(value, 2) for key, value in self.seconds.items()}, "all": self.total}

    @property
    def total(self) -> float:
        """Seconds since the beginning."""
        return round(time.perf_counter() - self._began, 2)


def run(
    model: FrozenModel, folder: Path, console: Console, **options: Any
) -> tuple[Manifest, dict[str, Any]]:
    """Export once; return the manifest, and the seconds of each phase."""
    phases = Phases(console)
    manifest = export(
        model,
        folder,
        reference=task_by_task(model),
        samples=planted_inputs(),
        about=About(Provenance(coterie="0", versions={"torch": torch.__version__})),
        overwrite=True,
        on_progress=phases,
        **options,
    )
    result: dict[str, Any] = {"seconds": phases.done()}
    result["task_graphs_asked"] = manifest.parity.graphs - 1
    result["task_graphs"] = len(manifest.tasks)
    result["max_abs_error"] = manifest.parity.max_abs_error
    result["said"] = [line for line in phases.lines if "task graphs" in line and "writing" not in line]
    return manifest, result


def with_another_task(model: FrozenModel, task: int) -> FrozenModel:
    """Return the model with one task trained again: another head, and another mixture of its experts."""
    stages, banks = list(model.plan.stages), list(model.banks)
    number = next(index for index, stage in enumerate(stages) if stage.kind == "gated")
    weights = list(stages[number].weights)
    weights[task] = tuple(weight + 0.01 for weight in weights[task])
    stages[number] = stages[number].model_copy(update={"weights": tuple(weights)})
    heads = list(banks[-1].tensors)
    heads[task] = {name: tensor + 0.01 for name, tensor in heads[task].items()}
    banks[-1] = FrozenBank(template=banks[-1].template, tensors=tuple(heads))
    plan = model.plan.model_copy(update={"stages": tuple(stages)})
    return replace(model, plan=plan, banks=tuple(banks))


def measure(tasks: int, width: int, folder: Path, console: Console) -> dict[str, Any]:
    """Export afresh, once more, and once more with one task changed."""
    # What the exporter imports when it first traces is counted as its own.
    before = resident()
    model = planted_model(tasks, width=width)
    weights = weight_bytes(model)
    manifest, fresh = run(model, folder / "bundle", console)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    _, again = run(model, folder / "again", console)
    identical = same_files(folder / "bundle", folder / "again")
    _, unchanged = run(model, folder / "again", console)
    identical_over_itself = same_files(folder / "bundle", folder / "again")
    _, changed = run(with_another_task(model, tasks // 2), folder / "again", console)
    rewritten = [
        path.name
        for path in sorted((folder / "again").iterdir())
        if path.read_bytes() != (folder / "bundle" / path.name).read_bytes()
    ]
    return {
        "tasks": tasks,
        "width": width,
        "stages": {stage.name: len(stage.blocks) for stage in manifest.plan.stages},
        "weights_mebibytes": round(weights / MEBIBYTE, 1),
        "memory": {
            "peak_above_imports_mebibytes": round((peak - before) / MEBIBYTE, 1),
            "bound_mebibytes": round((2 * weights + 1e9) / MEBIBYTE, 1),
            "within": peak - before <= 2 * weights + 1e9,
        },
        "fresh": fresh,
        "once_more_elsewhere": {**again, "byte_identical": identical},
        "once_more_in_place": {**unchanged, "byte_identical": identical_over_itself},
        "one_task_changed_in_place": {
            **changed,
            "files_rewritten": rewritten,
            "files": len(manifest.files) + 1,
        },
    }


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    console = Console()
    with TemporaryDirectory() as scratch:
        result = measure(chosen.tasks, chosen.width, Path(scratch), console)
    console.print(result)
    write_result("export_scale", {"threads": chosen.threads, **result})


if __name__ == "__main__":
    main()
