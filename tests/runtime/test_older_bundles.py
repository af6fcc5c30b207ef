"""What an earlier coterie exported is answered as it was then."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from coterie.runtime import load
from coterie.runtime.engine._engine import Mode

OLDER = Path(__file__).parent / "older"


@pytest.mark.parametrize("mode", ["router", "task"])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_older_bundle_answers_as_it_did(version: int, mode: Mode) -> None:
    engine = load(OLDER / str(version) / "bundle", mode=mode)
    assert engine.bundle.manifest.schema_version == version
    known = json.loads((OLDER / str(version) / "answers.json").read_text())
    rows, tasks = len(known["inputs"]), len(engine.tasks)
    answer = engine.predict_many(
        known["inputs"], np.repeat(np.arange(rows), tasks), np.tile(np.arange(tasks), rows)
    )
    assert np.abs(answer.scores - np.array(known["scores"])).max() < 2e-5
    assert len({tuple(scores) for scores in known["scores"]}) > tasks
