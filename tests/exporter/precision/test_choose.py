"""Which blocks keep fp32, so that no task loses more than it may."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.exporter import models
from tests.exporter.conftest import publish
from tests.exporter.precision.narrow import agreement, inputs, large_feature

from coterie.exporter._precision._narrow import Narrowing
from coterie.runtime.errors import ExportError, ParityError
from coterie.runtime.manifest import Manifest


def export(tasks: str, folder: Path, drop: float | None) -> Manifest:
    model = large_feature(tasks)
    narrowing = Narrowing(precision="int8", max_metric_drop=drop, measure=agreement(model))
    return publish(model, folder, samples=inputs(32), narrowing=narrowing)


def test_the_block_that_costs_too_much_stays_fp32_and_the_others_do_not(tmp_path: Path) -> None:
    manifest = export("steady fragile both", tmp_path / "bundle", 1.0)
    report = manifest.precision
    assert report.blocks["own/0"] == "int8"
    assert report.blocks["own/1"] == "fp32"
    assert report.costly == ("own/1",)
    assert report.max_metric_drop == 1.0
    assert set(report.drops) == {"steady", "fragile", "both"}
    assert max(report.drops.values()) <= 1.0


def test_a_bound_that_allows_all_keeps_all_narrow(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="away from the torch model"):
        # Within the bound, but no longer the model.
        export("steady fragile", tmp_path / "bundle", 100.0)


def test_where_nothing_satisfies_the_bound_it_says_by_how_much(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"nothing can be int8 .* lose 1 points: .*'fragile' loses [1-9]"):
        export("fragile", tmp_path / "bundle", 1.0)
    assert not (tmp_path / "bundle").exists()


def test_without_a_bound_scores_that_are_not_the_model_s_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="away from the torch model"):
        export("fragile", tmp_path / "bundle", None)


@pytest.mark.parametrize(
    ("narrowing", "says"),
    [
        (Narrowing(max_metric_drop=1.0, measure=lambda _: {}), "give a precision"),
        (Narrowing(precision="int8", max_metric_drop=-1.0, measure=lambda _: {}), "give 0 or more"),
        (Narrowing(precision="int8", max_metric_drop=float("nan"), measure=lambda _: {}), "give 0 or more"),
        (Narrowing(precision="int8", max_metric_drop=1.0), "validation data"),
    ],
)
def test_a_bound_that_means_nothing_is_refused(narrowing: Narrowing, says: str) -> None:
    with pytest.raises(ExportError, match=says):
        narrowing.check()


def test_a_model_without_anything_to_gain_is_refused(tmp_path: Path) -> None:
    model = models.MODELS["lone"]()
    with pytest.raises(ExportError, match="no weight of this model gains by int8"):
        publish(model, tmp_path / "bundle", narrowing=Narrowing(precision="int8"))
    assert not (tmp_path / "bundle").exists()
