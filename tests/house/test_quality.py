"""The quality study: settings are chosen on dev, test is read of what was chosen, nothing is made twice."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from benchmarks.common import RESULTS_VARIABLE
from benchmarks.quality import __main__ as command
from benchmarks.quality._design import Comparison, Job, Protocol, Study, System
from benchmarks.quality._figures import draw
from benchmarks.quality._next import chosen, missing
from benchmarks.quality._record import is_sealed, path_of, read, write
from benchmarks.quality._sharing import between_seeds, groups
from benchmarks.quality._tables import own_plans, summary


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(RESULTS_VARIABLE, str(tmp_path / "results"))
    return tmp_path / "results"


def study(**changes: Any) -> Study:
    short = ("trainer.epochs=1",)
    settings: dict[str, Any] = {
        "name": "small",
        "title": "Digits",
        "description": None,
        "paths": (),
        "groups": {"all": ()},
        "protocols": (Protocol(name="short", title="One epoch", options=short, seeds=2),),
        "systems": (
            System(
                name="own",
                title="one model a task",
                configuration="digits-single",
                tries={"slow": ("trainer.lr=1e-5",), "preset": ()},
            ),
            System(name="hard", title="hard sharing", configuration="digits-hard", claim=True),
        ),
        "comparisons": (Comparison(better="hard", worse="own"),),
        "ours": "hard",
        "single": "own",
        "shown": ("own", "hard"),
    }
    return Study(**settings | changes)


def record(**scores: float) -> dict[str, Any]:
    return {
        "try": "preset",
        "scores": {split: {"a": value, "b": value} for split, value in scores.items()},
        "cpu_seconds": 1.0,
    }


def test_a_system_is_not_chosen_before_all_its_tries_are_made(tmp_path: Path) -> None:
    small = study()
    own = small.systems[0]
    write(Job(small, own, "slow", small.protocols[0], 0), record(dev=0.9))
    assert chosen(small, own) is None
    assert [job.name for job in missing([small]) if job.system is own] == ["small/own.preset.short.0"]
    write(Job(small, own, "preset", small.protocols[0], 0), record(dev=0.8))
    assert chosen(small, own) == "slow"


@pytest.mark.slow
def test_a_try_that_diverges_is_made_once_and_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loud = System(
        name="own",
        title="one model a task",
        configuration="digits-hard",
        options=("trainer.gradient_clip=null",),
        tries={"loud": ("trainer.lr=1e30",), "preset": ()},
    )
    small = study(systems=(loud,), comparisons=(), ours="own", shown=("own",))
    monkeypatch.setattr("benchmarks.quality._train.ROOT", tmp_path)
    monkeypatch.setitem(command.STUDIES, "small", small)
    work = command.Work({"small": ()}, tmp_path / "runs", 1, (), time.monotonic() + 600)
    work.run()
    assert work.failed == []
    assert chosen(small, loud) == "preset"
    assert not list(missing([small]))
    found = summary([small])["studies"]["small"]["tries"][0]
    assert found["dev"]["loud"] is None
    assert found["dev"]["preset"] > 0


def test_only_the_scores_of_what_was_chosen_are_still_to_be_read(tmp_path: Path) -> None:
    small = study()
    own = small.systems[0]
    for name, dev in (("slow", 0.9), ("preset", 0.8)):
        write(Job(small, own, name, small.protocols[0], 0), record(dev=dev))
    assert [job.name for job in missing([small]) if job.system is own] == ["small/own.slow.short.0"]
    write(Job(small, own, "slow", small.protocols[0], 0), record(dev=0.9, test=0.7))
    assert not [job for job in missing([small]) if job.system is own]


def test_a_system_that_a_claim_rests_on_has_every_seed(tmp_path: Path) -> None:
    small = study()
    assert [job.name for job in missing([small], ["small/hard"])] == [
        "small/hard.preset.short.0",
        "small/hard.preset.short.1",
    ]


def test_groupings_of_two_seeds_are_alike_whatever_their_numbers() -> None:
    def plan(*labels: int) -> list[dict[str, Any]]:
        return [{"name": "c", "kind": "cluster", "trained": 4, "kept": 2, "uses": [[k] for k in labels]}]

    assert between_seeds([plan(0, 0, 1, 1), plan(1, 1, 0, 0)])[0]["ari"] == [1.0]
    assert between_seeds([plan(0, 0, 1, 1), plan(0, 1, 0, 1)])[0]["ari"][0] < 0
    assert groups(plan(0, 1, 0, 1), ["a", "b", "c", "d"]) == {"c": [["a", "c"], ["b", "d"]]}


def test_mixtures_of_two_seeds_are_alike_whatever_the_order_of_experts() -> None:
    def plan(*uses: list[int]) -> list[dict[str, Any]]:
        weights = [[1.0] * len(used) for used in uses]
        stage = {"name": "g", "kind": "gated", "trained": 3, "kept": 3, "uses": uses, "weights": weights}
        return [stage]

    one, turned = plan([0, 1], [0], [2]), plan([1, 2], [1], [0])
    assert between_seeds([one, turned])[0]["correlation"] == [1.0]
    assert groups(one, ["a", "b", "c"])["g"][:2] == [["a", "b"], ["b", "a"]]


@pytest.mark.slow
def test_a_study_is_made_once_and_only_the_chosen_try_is_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = study()
    monkeypatch.setattr("benchmarks.quality._train.ROOT", tmp_path)
    monkeypatch.setitem(command.STUDIES, "small", small)
    work = command.Work({"small": ()}, tmp_path / "runs", 1, (), time.monotonic() + 600)
    work.run()
    assert work.failed == []
    assert not list(missing([small]))
    slow, preset = (
        read(Job(small, small.systems[0], name, small.protocols[0], 0)) for name in ("slow", "preset")
    )
    assert slow is not None
    assert preset is not None
    assert is_sealed(slow)
    assert not is_sealed(preset)
    found = summary([small])
    rows = found["studies"]["small"]["protocols"]["short"]["rows"]
    assert [(row["system"], row["choice"], row["seeds"]) for row in rows] == [
        ("own", "preset", 1),
        ("hard", "preset", 2),
    ]
    assert rows[0]["costs"]["operations_an_input"] > 0
    assert len(draw(found, own_plans([small]), tmp_path)) >= 1
    # Nothing is made again.
    before = path_of(Job(small, small.systems[1], "preset", small.protocols[0], 0)).stat().st_mtime_ns
    command.Work({"small": ()}, tmp_path / "runs", 1, (), time.monotonic() + 600).run()
    assert path_of(Job(small, small.systems[1], "preset", small.protocols[0], 0)).stat().st_mtime_ns == before
