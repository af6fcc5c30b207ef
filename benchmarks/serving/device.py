"""A GPU beside the CPU: the same answers, where the nodes run, and how long questions take.

    python -m benchmarks.serving.device                       # 20 tasks over blocks 512 wide
    python -m benchmarks.serving.device bundles/digits        # a bundle of yours, of numeric inputs or tokens

Fails where a score differs from the CPU's by more than the bundle was exported with, or where a node of the
router's device part was left to the CPU though it computes on states. The router is timed divided, with its
dispatch computed on the host, and whole, with the dispatch on the device.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from rich.console import Console
from rich.table import Table

from benchmarks.common import side_by_side, write_result
from benchmarks.serving.engine import make_bundle
from coterie.runtime import Bundle, Engine, load
from coterie.runtime.engine._devices import provider_problems, with_options
from coterie.runtime.errors import CoterieError

CPU = "CPUExecutionProvider"
SEED = 0
TOKENS = 64
"""Length of an input where that is open."""
CASES = ((1, 1), (16, 16), (64, 64), (256, 256), (1, 20))
"""Inputs and questions."""
_HOST_SIDE = frozenset(
    {"Shape", "Concat", "Mul", "Greater", "Squeeze", "Unsqueeze", "Gather", "Expand", "Cast"}
)
"""What reckons with shapes; ONNX Runtime leaves that to the CPU, which knows them without the device."""


@dataclass(frozen=True)
class Asked:
    """Some questions: the inputs by name, ``row [B]`` and ``task [B]``."""

    inputs: dict[str, npt.NDArray[Any]]
    row: npt.NDArray[np.int64]
    task: npt.NDArray[np.int64]

    def run(self, engine: Engine) -> Any:
        """Ask them."""
        inputs = self.inputs if len(self.inputs) > 1 else next(iter(self.inputs.values()))
        return engine.predict_many(inputs, self.row, self.task)


def asked(bundle: Bundle, inputs: int, questions: int) -> Asked:
    """Return random questions about random inputs; of tokens the first few ids alone."""
    generator = np.random.default_rng(SEED)
    given: dict[str, npt.NDArray[Any]] = {}
    for spec in bundle.manifest.inputs:
        shape = (inputs, *(size or TOKENS for size in spec.shape[1:]))
        if spec.dtype == "float32":
            given[spec.name] = generator.standard_normal(shape).astype(np.float32)
        else:
            given[spec.name] = generator.integers(1, 3, shape).astype(spec.dtype)
    row = np.arange(questions) % inputs
    return Asked(given, row, generator.integers(0, len(bundle.tasks), questions))


def engines(folder: Path, provider: str) -> dict[str, Engine]:
    """Return the same router on the CPU, and on the device in two parts and whole; all are warm."""
    bundle = load(folder, mode="router").bundle
    whole = replace(bundle, manifest=bundle.manifest.model_copy(update={"router_parts": None}))
    made = {
        "the CPU": Engine(bundle, mode="router"),
        "divided": Engine(bundle, mode="router", providers=(provider, CPU)),
        "whole": Engine(whole, mode="router", providers=(provider, CPU)),
    }
    for engine in made.values():
        engine.warm()
    return made


def difference(engine: Engine, other: Engine) -> float:
    """Return the largest difference of a score, relative where the other's is above 1."""
    worst = 0.0
    for inputs, questions in CASES:
        question = asked(engine.bundle, inputs, questions)
        scores, wanted = question.run(engine).scores, question.run(other).scores
        worst = max(worst, float((np.abs(scores - wanted) / np.maximum(1, np.abs(wanted))).max()))
    return worst


def placed(bundle: Bundle, file: str, provider: str) -> dict[str, Counter[str]] | None:
    """Return how many nodes of each operator run on each provider; None where ONNX Runtime does not tell."""
    if not hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"):
        return None
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(str(bundle.graph(file)), options, with_options((provider, CPU)))
    found: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return found


def compare(folder: Path, provider: str, rounds: int) -> dict[str, Any]:
    """Ask the device and the CPU the same, and time both."""
    made = engines(folder, provider)
    bundle = made["divided"].bundle
    parts = bundle.manifest.router_parts
    files = {"whole": bundle.manifest.router} | ({} if parts is None else {"divided": parts.device})
    places = {name: placed(bundle, file, provider) for name, file in files.items()}
    milliseconds: dict[str, dict[str, float]] = {}
    for inputs, questions in CASES:
        question = asked(bundle, inputs, questions)
        runs: dict[str, Callable[[], object]] = {
            name: (lambda engine=engine, question=question: question.run(engine))  # type: ignore[misc]
            for name, engine in made.items()
        }
        times = side_by_side(runs, rounds=rounds, warmup=5)
        milliseconds[f"{questions} about {inputs}"] = {
            name: round(1000 * each, 3) for name, each in times.items()
        }
    return {
        "provider": provider,
        "onnxruntime": ort.__version__,
        "differences": {name: difference(made[name], made["the CPU"]) for name in ("divided", "whole")},
        "tolerance": bundle.manifest.parity.tolerance,
        "placed": places,
        "milliseconds": milliseconds,
    }


def problems(found: dict[str, Any]) -> list[str]:
    """Return what is not as it should be."""
    wrong = [
        f"{name}: scores differ from the CPU's by {worst:.2g}, more than {found['tolerance']:g}"
        for name, worst in found["differences"].items()
        if worst > found["tolerance"]
    ]
    left = (found["placed"].get("divided") or {}).get(CPU, {})
    states = sorted(set(left) - _HOST_SIDE)
    if found["provider"].startswith("CUDA") and states:
        wrong.append(f"left to the CPU in the router's device part: {', '.join(states)}")
    return wrong


def show(found: dict[str, Any], console: Console) -> None:
    """Print what was found."""
    table = Table("questions", "the CPU, ms", "divided, ms", "whole, ms")
    for case, times in found["milliseconds"].items():
        table.add_row(case, *(f"{times[name]:.3f}" for name in ("the CPU", "divided", "whole")))
    console.print(table)
    for name, worst in found["differences"].items():
        console.print(f"{name}: largest difference from the CPU {worst:.2g}")
    for name, places in found["placed"].items():
        for provider, nodes in (places or {}).items():
            console.print(f"{name}, {provider}: {nodes.total()} nodes; {dict(nodes.most_common(8))}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and write the result; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("--provider", default="CUDAExecutionProvider")
    parser.add_argument("--rounds", type=int, default=40)
    chosen = parser.parse_args(arguments)
    console = Console()
    # What is missing is told before a bundle is made.
    missing = provider_problems((chosen.provider,))
    if missing:
        console.print("\n".join(missing), markup=False)
        return 1
    with TemporaryDirectory() as scratch:
        try:
            folder = chosen.bundle or make_bundle(Path(scratch) / "bundle")
            found = compare(folder, chosen.provider, chosen.rounds)
        except CoterieError as error:
            console.print(str(error), markup=False)
            return 1
    show(found, console)
    wrong = problems(found)
    for problem in wrong:
        console.print(problem, style="bold red")
    console.print(f"written: {write_result('serving_device', found)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
