"""Mutated bundles, loaded and asked: how many are refused, and whether anything worse ever happens.

    python -m benchmarks.export.fuzz --cases 10000
    python -m benchmarks.export.fuzz --cases 1000 --bundle bundles/digits

Without ``--bundle``: two small bundles made by hand, over numbers and over texts. The command fails when a
bundle does what it must not; ``tests/fuzz/trials.py`` says what that is, and a seed repeats it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz.trials import MEMORY, SECONDS, Trial, run_trials
from tests.runtime.handmade import write_bundle

from coterie.runtime.bundle._signature import make_keys, sign_manifest

from ..common import write_result


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000, help="mutations in all")
    parser.add_argument("--bundle", type=Path, help="a bundle to mutate instead; nothing is written then")
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        bundles = _bundles(Path(folder), arguments.bundle)
        share = arguments.cases // len(bundles)
        trials = {name: _run(bundle, share) for name, bundle in bundles.items()}
    everything = [trial for each in trials.values() for trial in each]
    result = _summary(everything) | {"bundles": {name: len(each) for name, each in trials.items()}}
    result["seconds"] = round(time.perf_counter() - began, 1)
    for mutation, counts in result["mutations"].items():
        print(f"{mutation:28s}", "  ".join(f"{name} {count}" for name, count in counts.items()))
    print(f"{len(everything)} cases: {result['outcomes']}; not allowed: {len(result['not_allowed'])}")
    if arguments.bundle is None:
        print(write_result("export_fuzz", result))
    sys.exit(bool(result["not_allowed"]))


def _bundles(folder: Path, given: Path | None) -> dict[str, Path]:
    """Return signed copies of the bundles, by name."""
    make_keys(folder / "key.pem", folder / "key.pub.pem")
    if given is None:
        made = {
            "features": write_bundle(folder / "features").path,
            "texts": write_bundle(folder / "texts", text=True).path,
        }
    else:
        made = {given.name: Path(shutil.copytree(given, folder / "given"))}
    for bundle in made.values():
        sign_manifest(bundle, folder / "key.pem")
    return made


def _run(bundle: Path, cases: int) -> list[Trial]:
    return list(run_trials(bundle, range(cases), (bundle.parent / "key.pub.pem").read_bytes()))


def _summary(trials: list[Trial]) -> dict[str, Any]:
    mutations: dict[str, Counter[str]] = {}
    for trial in trials:
        mutations.setdefault(trial.mutation, Counter())[trial.outcome] += 1
    kinds = {True: "forged", False: "damaged"}
    return {
        "cases": len(trials),
        "outcomes": dict(Counter(trial.outcome for trial in trials)),
        **{
            kind: dict(Counter(trial.outcome for trial in trials if trial.forged == forged))
            for forged, kind in kinds.items()
        },
        "mutations": {name: dict(sorted(counts.items())) for name, counts in sorted(mutations.items())},
        "not_allowed": [
            {"seed": trial.seed, "mutation": trial.mutation, "outcome": trial.outcome, "detail": trial.detail}
            for trial in trials
            if not trial.allowed
        ],
        "limits": {"seconds": SECONDS, "address_space_bytes": MEMORY},
    }


if __name__ == "__main__":
    main()
