"""Plans of stitched columns: what a task depends on, and what is refused as no plan."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from coterie.runtime.plan import StagePlan, Stitches

LAYERS: tuple[dict[str, Any], ...] = (
    {"blocks": [0, 1, 2], "takes": [0, 0, 0], "columns": [0, 2], "alpha": [[1.0, 0.5, 0.0], [0.0, 0.0, 1.0]]},
    {"blocks": [3, 4], "takes": [0, 1], "columns": [0], "alpha": [[1.0, -0.25]]},
)
STITCHES: dict[str, Any] = {
    "subspaces": 1,
    "axis": -1,
    "layers": LAYERS,
    "reads": [[[1, 0, 1.0]], [[0, 0, 0.5], [0, 1, 0.5]], [[0, 1, 1.0]]],
}
STAGE: dict[str, Any] = {
    "name": "columns",
    "kind": "stitched",
    "trained_blocks": 6,
    "blocks": [{"name": f"columns/{number}", "source": number, "parameters": 4} for number in range(5)],
    "uses": [[0, 1, 2, 3, 4], [0, 1, 2], [2]],
    "weights": [[1.0] * 5, [1.0] * 3, [1.0]],
    "stitches": STITCHES,
}


def test_a_task_uses_the_blocks_that_its_state_depends_on() -> None:
    stage = StagePlan.model_validate(STAGE)
    assert stage.stitches is not None
    assert stage.stitches.needs() == stage.uses
    assert stage.mixes
    assert not stage.dense


@pytest.mark.parametrize(
    ("layer", "change", "mistake"),
    [
        (0, {"takes": [0, 0, 1]}, "takes one column of the layer before"),
        (1, {"takes": [0, 2]}, "takes one column of the layer before"),
        (0, {"alpha": [[1.0, 0.5, 0.0]]}, "a row for each subspace of each column"),
        (0, {"alpha": [[1.0, 0.5], [0.0, 1.0]]}, "a mixture of at least one"),
        (0, {"alpha": [[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]]}, "a mixture of at least one"),
        (0, {"blocks": [0, 0, 2]}, "ascending and distinct"),
        (0, {"blocks": [-1, 1, 2]}, "ascending and distinct"),
    ],
)
def test_a_layer_that_does_not_fit_is_refused(layer: int, change: dict[str, Any], mistake: str) -> None:
    layers = [dict(each) for each in LAYERS]
    layers[layer].update(change)
    with pytest.raises(ValidationError, match=mistake):
        Stitches.model_validate({**STITCHES, "layers": layers})


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        ({"uses": [[0, 1, 2, 3, 4], [0, 1, 2], [1]]}, "uses the blocks that its state depends on"),
        ({"columns": [0, 0, 0]}, "has one block"),
        ({"weights": [[1.0] * 5, [1.0] * 3, [0.5]]}, "mixtures of a stitched stage"),
        (
            {"stitches": {**STITCHES, "layers": (LAYERS[0], {**LAYERS[1], "blocks": [3, 10**12]})}},
            "among the stage's blocks",
        ),
    ],
)
def test_a_stage_that_does_not_fit_its_columns_is_refused(change: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ValidationError, match=mistake):
        StagePlan.model_validate({**STAGE, **change})


@pytest.mark.parametrize("read", [[], [[2, 0, 1.0]], [[0, 2, 1.0]], [[-1, 0, 1.0]]])
def test_a_task_reads_columns_that_there_are(read: list[list[float]]) -> None:
    with pytest.raises(ValidationError, match="reads at least one column"):
        Stitches.model_validate({**STITCHES, "reads": [read]})
