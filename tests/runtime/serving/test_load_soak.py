"""A server that loses nothing, for half a minute; ``python -m benchmarks.serving.soak`` goes on longer."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.serving.soak import judged, soak
from benchmarks.serving.soak_clients import Note
from benchmarks.serving.soak_script import Story

from ..handmade import write_bundle


@pytest.mark.slow
def test_nothing_is_lost_while_all_sorts_of_things_happen(tmp_path: Path) -> None:
    bundles = [write_bundle(tmp_path / str(seed), seed=seed).path for seed in range(2)]
    found = soak(bundles, tmp_path, seconds=0, pause=0.7, processes=1, rate=100)
    assert (found["lost"], found["wrong"], found["processes_left"]) == (0, 0, 0), found
    assert set(found["events"]) == {
        "deploy", "roll_back", "canary", "promote", "kill", "disconnect", "flood"
    }  # fmt: skip
    assert found["versions"] == 3
    assert found["workers_at_last"] == found["workers"] == 2
    assert found["outcomes"]["right"] > 300
    assert found["flood"]["requests"]["answered"] > 20  # on a busy machine too


def story() -> Story:
    return Story(
        served=[(0.0, frozenset("1")), (100.0, frozenset("2"))],
        bundles={"1": 0, "2": 1},
        kills=[(50.0, 2.0)],
        floods=[(20.0, 30.0, 0)],
        quiet=[(10.0, 20.0)],
    )


def note(sent: float, **changes: object) -> Note:
    right = {"seconds": 0.01, "task": 1, "outcome": "answered", "version": "1", "bundle": 0}
    return Note(sent, **(right | changes))


@pytest.mark.parametrize(
    ("bad", "lost", "wrong"),
    [
        (note(5.0), 0, 0),
        (note(5.0, bundle=1), 0, 1),  # the numbers of the other version
        (note(5.0, bundle=-1), 0, 1),  # of another task, or of none
        (note(5.0, version="2", bundle=1), 0, 1),  # before it was served
        (note(104.0), 0, 0),  # a worker has not yet followed
        (note(120.0), 0, 1),  # and this one never did
        (note(5.0, broken=(5.1,)), 1, 0),  # sent again, and answered: and yet it was lost
        (note(49.9, broken=(50.1,)), 0, 0),  # on its way to a killed worker
        (note(150.0, outcome="lost", broken=(150.1, 180.0)), 1, 0),
        (note(205.0, outcome="lost", broken=(205.1,)), 0, 0),  # the server had been told to stop
        (note(205.0, outcome="CANCELLED"), 0, 0),
        (note(199.0, outcome="lost", broken=(205.1,)), 1, 0),  # it had not when this was sent
        (note(5.0, outcome="429"), 0, 0),  # refused: not accepted
        (note(5.0, outcome="500"), 1, 0),
        (note(5.0, outcome="CANCELLED"), 1, 0),
    ],
)
def test_what_is_lost_or_wrong_is_counted(bad: Note, lost: int, wrong: int) -> None:
    found = judged([note(12.0), note(22.0, seconds=0.02), bad], story(), 200.0)
    assert (found["lost"], found["wrong"]) == (lost, wrong), found
    assert found["flood"]["ratio"] == pytest.approx(2.0)
