"""A few hundred mutated bundles; ``python -m benchmarks.export.fuzz`` makes as many as one likes."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from coterie.runtime.bundle._signature import make_keys, sign_manifest

from ..runtime.handmade import write_bundle

if sys.platform != "linux":
    pytest.skip("only Linux lets a process be watched and limited as here", allow_module_level=True)

from .mutations import DAMAGE, FILE_OUTSIDE, FORGED
from .trials import Trial, Watch, run_trials

CASES = 300


@pytest.fixture(scope="module", params=["features", "texts"])
def trials(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    """Trials of a signed bundle."""
    folder = tmp_path_factory.mktemp("fuzz")
    bundle = write_bundle(folder / "bundle", text=request.param == "texts").path
    make_keys(folder / "key.pem", folder / "key.pub.pem")
    sign_manifest(bundle, folder / "key.pem")
    return list(run_trials(bundle, range(CASES), (folder / "key.pub.pem").read_bytes()))


def test_a_mutated_bundle_is_refused_or_harmless(trials: list[Trial]) -> None:
    """Never another exception, a crash, a hang, or a file from outside; no forgery passes for signed."""
    assert [trial for trial in trials if not trial.allowed] == []


def test_the_trials_try_something(trials: list[Trial]) -> None:
    outcomes = Counter((trial.forged, trial.outcome) for trial in trials)
    assert {trial.mutation for trial in trials} == {each.__name__ for each in (*DAMAGE, *FORGED)}
    assert outcomes[False, "refused"] > CASES // 10
    assert outcomes[True, "refused"] > CASES // 3
    assert outcomes[True, "same"] > 0


def test_the_watch_sees_what_is_opened(tmp_path: Path) -> None:
    file = tmp_path / FILE_OUTSIDE
    file.write_text("secret")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "linked").hardlink_to(file)
    watch = Watch(tmp_path, file)
    assert not watch.seen()
    file.read_text()
    assert watch.seen()
    assert not watch.seen()
    (tmp_path / "inside" / "linked").read_text()
    assert watch.seen()
