"""A flood as the benchmark makes it: it is one, and those who ask other tasks are measured."""

from __future__ import annotations

import pytest
from benchmarks.serving.flood import Flood, measured
from benchmarks.serving.questions import Questions

from coterie.runtime.serving import Addresses, running_server

from ..handmade import FEATURES, HandMade


@pytest.mark.slow
def test_a_flood_asks_without_a_pause_while_others_are_timed(server: Addresses, features: HandMade) -> None:
    questions = Questions(features.names, "features", (FEATURES,), each=4)
    found = measured(Flood("binary", 2, 4), "grpc", server, questions, rate=60, seconds=0.5, seed=0)
    assert found["failures"] == 0
    assert found["flood_rows_a_second"] > 100
    assert found["flood_refused_a_second"] == 0
    assert 0 < found["p50_ms_before"] < found["p99_ms_before"]
    assert found["ratio"] == pytest.approx(found["p99_ms_during"] / found["p99_ms_before"])


@pytest.mark.slow
def test_what_a_full_task_is_asked_is_refused_and_others_are_answered(features: HandMade) -> None:
    questions = Questions(features.names, "features", (FEATURES,), each=4)
    with running_server(features.path, threads=1, max_task_rows=20) as at:
        # Over HTTP several are read in one turn of the loop; over gRPC a quick server may refuse none.
        found = measured(Flood("binary", 64, 16), "grpc", at, questions, rate=60, seconds=0.5, seed=0)
        assert found["failures"] == 0
        assert found["flood_refused_a_second"] > 0
