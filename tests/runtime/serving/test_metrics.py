"""What is counted: of tasks, blocks and versions, by all workers together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton

from coterie.runtime import load
from coterie.runtime.batching import Batcher
from coterie.runtime.engine._prediction import Timing
from coterie.runtime.serving._reports import Reports
from coterie.runtime.serving.models._models import Done, Models
from coterie.runtime.serving.observing._board import Board, line_of, read_told
from coterie.runtime.serving.observing._exposition import exposition
from coterie.runtime.serving.observing._metrics import Metrics
from coterie.runtime.serving.observing._scrape import Scrape, parse, scrape
from coterie.runtime.serving.observing._statistics import Statistics

from ..handmade import HandMade
from .watched import ROW, Watched, eventually

TIMING = Timing(arrived=1.0, started=1.003, seconds=0.02, rows=7)


def done(model: str = "topic", *, version: str = "1", outcome: str = "ok", questions: int = 2) -> Done:
    timing = TIMING if outcome == "ok" else None
    return Done(model, version, "http", outcome, questions, 0.03, timing)


def read(*metrics: Metrics, versions: Any = (), pid: int = 1) -> Scrape:
    told = []
    for each in metrics:
        parts = [
            {"pid": pid, "waiting": 1, "versions": versions},
            *({"metrics": part} for part in each.parts()),
        ]
        # Through JSON, as from another worker.
        told.append(read_told(b"\n".join(map(line_of, parts))))
    return parse(exposition(told).decode(), "here")


def test_workers_are_added_up(features: HandMade) -> None:
    engine = load(features.path, threads=1)
    workers = [Metrics(), Metrics()]
    for number, metrics in enumerate(workers):
        metrics.version("1", engine.bundle.manifest.plan)
        for _ in range(number + 1):
            metrics.observe(done())
        metrics.observe(done("unknown", outcome="not_found", questions=0))
    seen = read(*workers)
    assert seen.total("coterie_requests_total", model="topic", outcome="ok") == 3
    assert seen.total("coterie_requests_total", model="unknown", outcome="not_found") == 2
    assert seen.total("coterie_questions_total") == 6
    assert seen.total("coterie_met_rows_total", model="topic") == 21
    assert seen.total("coterie_version_requests_total", version="1") == 5
    assert seen.total("coterie_queue_seconds_count", model="topic") == 3
    assert seen.total("coterie_queue_seconds_sum") == pytest.approx(3 * 0.003)
    buckets = {own["le"]: value for own, value in seen.find("coterie_compute_seconds_bucket", model="topic")}
    assert (buckets["0.01"], buckets["0.025"], buckets["+Inf"]) == (0, 3, 3)


def test_what_a_worker_tells_of_many_tasks_comes_in_small_parts(features: HandMade) -> None:
    """While it is told, questions are answered between two of them."""
    plan = load(features.path, threads=1).bundle.manifest.plan
    names = tuple(f"task {number}" for number in range(300))
    metrics, statistics = Metrics(), Statistics(names, "1")
    metrics.version("1", plan.model_copy(update={"tasks": names}))
    for name in names:
        metrics.observe(done(name))
        statistics.failed(name, 0.5)
    parts = list(metrics.parts())
    assert max(len(part["counters"]) + len(part["histograms"]) for part in parts) <= 50
    assert read(metrics).total("coterie_questions_total") == 600
    told = list(statistics.parts())
    assert max(map(len, told)) <= 50
    assert [name for models in told for name in models] == list(names)


def test_tasks_past_the_bound_share_their_series(features: HandMade) -> None:
    engine = load(features.path, threads=1)
    metrics = Metrics(tasks=2, histograms=1)
    runs = metrics.version("1", engine.bundle.manifest.plan)
    for name in (*features.names, "router", "unknown"):
        metrics.observe(done(name))
    runs.batch(requests=1, task=np.arange(4), inputs=1, seconds=0.1)
    seen = read(metrics)
    assert seen.names_of("coterie_requests_total", "model") == ["mood", "other", "router", "topic", "unknown"]
    assert seen.names_of("coterie_queue_seconds_count", "model") == ["other", "router", "topic", "unknown"]
    assert seen.total("coterie_requests_total", model="other") == 2
    assert seen.total("coterie_task_rows_total", task="other") == 2
    assert len(seen.names_of("coterie_block_runs_total", "block")) == 2


def test_bundles_that_come_and_go_make_no_more_series_than_the_bound(features: HandMade) -> None:
    plan = load(features.path, threads=1).bundle.manifest.plan
    metrics = Metrics(tasks=6)
    for number in range(5):
        names = tuple(f"task-{number}-{at}" for at in range(4))
        metrics.version(str(number), plan.model_copy(update={"tasks": names}))
        for name in names:
            metrics.observe(done(name, version=str(number)))
    seen = read(metrics)
    assert len(seen.names_of("coterie_requests_total", "model")) == 7
    assert seen.total("coterie_requests_total", model="other") == 14


def test_blocks_are_counted_as_the_plan_says_they_are_used(features: HandMade) -> None:
    """Against a run's tasks and the plan, question by question; heads are their tasks'."""
    metrics, runs = Metrics(), []

    class Seen:
        def __init__(self, counting: Any) -> None:
            self.counting = counting

        def batch(self, *, task: Any, **rest: Any) -> None:
            runs.append(task.tolist())
            self.counting.batch(task=task, **rest)

    async def ask() -> None:
        engine = load(features.path, threads=1)
        batcher = Batcher(engine, observer=Seen(metrics.version("7", engine.bundle.manifest.plan)))
        for tasks in (["topic"], ["topic", "price"], ["mood"], ["mood", "topic", "tags", "mood"]):
            await asyncio.gather(*(batcher.predict(task, features.inputs(2)) for task in tasks))
        await batcher.predict_many(features.inputs(1), [0, 0, 0], ["tags", "tags", "price"])
        await batcher.close()

    asyncio.run(ask())
    plan = load(features.path, threads=1).bundle.manifest.plan
    seen = read(metrics)
    stages = [stage for stage in plan.stages if stage.kind != "head"]
    assert sum(len(stage.blocks) for stage in stages) == 3
    for stage in stages:
        for at, block in enumerate(stage.blocks):
            needed = [[task for task in run if at in stage.uses[task]] for run in runs]
            labels = {"version": "7", "block": block.name}
            assert seen.total("coterie_block_runs_total", **labels) == sum(map(bool, needed))
            assert seen.total("coterie_block_rows_total", **labels) == sum(map(len, needed))
    for index, name in enumerate(plan.tasks):
        asked = sum(run.count(index) for run in runs)
        assert seen.total("coterie_task_rows_total", version="7", task=name) == asked
    assert seen.total("coterie_batch_rows_sum", version="7") == sum(map(len, runs))
    assert seen.total("coterie_run_seconds_count") == len(runs)


def test_a_version_that_is_unloaded_takes_its_series_with_it(features: HandMade) -> None:
    plan = load(features.path, threads=1).bundle.manifest.plan
    metrics = Metrics()
    for version in ("1", "2"):
        runs = metrics.version(version, plan)
        runs.batch(requests=1, task=np.array([0]), inputs=1, seconds=0.1)
        metrics.observe(done(version=version))
        metrics.shadowed(version=version, outcome="same")
    metrics.unloaded("1")
    seen = read(metrics)
    labelled = [own for series in seen.samples.values() for own in series if dict(own).get("version")]
    assert {dict(own)["version"] for own in labelled} == {"2"}
    assert seen.total("coterie_requests_total") == 2  # what is not of a version goes on


def test_what_a_worker_that_ended_had_counted_stays_counted(features: HandMade, tmp_path: Path) -> None:
    async def ask(requests: int) -> Reports:
        engine, metrics = load(features.path, threads=1), Metrics()
        batcher = Batcher(engine, observer=metrics.version("1", engine.bundle.manifest.plan))
        models = Models(batcher, max_rows=64, observer=metrics)
        models.ready = True
        reports = Reports(models, metrics, Board(tmp_path))
        reports.start()
        for _ in range(requests):
            await models.ask("topic", "json", lambda version: predicted(version.batcher))
        await reports.stop()
        await models.close()
        return reports

    async def predicted(batcher: Batcher) -> Any:
        return None, await batcher.predict("topic", [ROW])

    async def both() -> tuple[Scrape, Mapping[str, Any]]:
        await ask(3)
        second = await ask(2)
        (statistics,) = second._models.statistics("topic")
        return parse((await second.exposition()).decode(), "here"), statistics

    seen, statistics = asyncio.run(both())
    assert seen.total("coterie_requests_total", model="topic") == 5
    assert seen.total("coterie_task_rows_total", task="topic") == 5
    assert statistics["inference_count"] == 5
    assert statistics["inference_stats"]["success"]["count"] == 5
    assert statistics["batch_stats"][0]["compute_infer"]["count"] == 5


def test_between_the_parts_of_what_is_told_the_engine_has_its_turn(features: HandMade) -> None:
    parts = 40

    class Many(Metrics):
        def parts(self) -> Iterator[dict[str, list[Any]]]:
            yield from [{"counters": [], "histograms": []}] * parts

    async def told() -> float:
        models = Models(Batcher(load(features.path, threads=1)), max_rows=64)
        reports = Reports(models, Many(), Board(None))
        began = time.perf_counter()
        await reports.exposition()
        seconds = time.perf_counter() - began
        await models.close()
        return seconds

    # Without a pause the loop has something to do all the time: threads that come after it get nothing.
    assert asyncio.run(told()) > 0.002 * parts


def test_a_server_counts_what_all_its_workers_answered(watched: Watched) -> None:
    def counted() -> tuple[float, float, float]:
        seen = scrape(watched.http)
        return (
            seen.total("coterie_requests_total", model="mood", transport="json", outcome="ok"),
            seen.total("coterie_requests_total", model="mood", transport="grpc", outcome="ok"),
            seen.total("coterie_task_rows_total", task="mood"),
        )

    before = eventually(lambda: _settled(counted))
    statistics = _statistics(watched)
    for _ in range(20):
        assert watched.predict("mood").status_code == 200
    for _ in range(10):
        # A channel for each, so that any worker may answer.
        with triton.InferenceServerClient(watched.grpc) as client:
            tensor = triton.InferInput("features", [1, 4], "FP32")
            tensor.set_data_from_numpy(np.array([ROW], dtype=np.float32))
            client.infer("mood", [tensor])
    grown = (before[0] + 20, before[1] + 10, before[2] + 30)
    assert eventually(lambda: _settled(counted) == grown), (counted(), grown)
    assert {_statistics(watched) for _ in range(10)} == {statistics + 30}


def test_a_counter_never_goes_back_whichever_worker_is_asked(watched: Watched) -> None:
    seen = []
    for _ in range(40):
        watched.predict("tags")
        seen.append(scrape(watched.http).total("coterie_requests_total", model="tags"))
    assert seen == sorted(seen)


def _settled(counted: Any) -> Any:
    """Return what is counted when ten readings, each perhaps of another worker, agree."""
    first = counted()
    return first if all(counted() == first for _ in range(10)) else None


def _statistics(watched: Watched) -> int:
    answer = httpx.get(f"{watched.http}/v2/models/mood/stats").json()["model_stats"][0]
    count: int = answer["inference_stats"]["success"]["count"]
    return count


def test_a_server_says_what_it_holds_and_how_much_memory_that_is(watched: Watched) -> None:
    seen = scrape(watched.http)
    assert seen.total("coterie_workers") == 2
    (held,) = seen.find("coterie_bundle_info")
    assert (held[0]["version"], held[0]["state"], held[1]) == ("1", "served", 2)
    sizes = [value for _, value in seen.find("coterie_resident_bytes")]
    assert len(sizes) == 2
    for size in sizes:
        assert 10e6 < size < 10e9
