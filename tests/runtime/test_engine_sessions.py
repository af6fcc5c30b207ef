"""Which sessions answer, what they share, and what is copied on the way."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from coterie.runtime import Engine, load
from coterie.runtime.engine._graph import Graph
from coterie.runtime.engine._sessions import Sessions
from coterie.runtime.engine._task_graphs import TaskGraphs
from coterie.runtime.engine._trial import own_sessions_pay

from .handmade import HandMade, hammer

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
Run = Callable[..., tuple[Any, Any]]


def task_graphs(features: HandMade, room: int) -> TaskGraphs:
    """Return the sessions of single tasks, with room for so many of them."""
    bundle = load(features.path, threads=1).bundle
    sessions = Sessions(bundle, weights="shared", providers=["CPUExecutionProvider"], threads=1)
    return TaskGraphs(sessions.make_task, sessions.task_bytes, limit=room * 256 * 1024)


def eventually(graphs: TaskGraphs, task: int) -> Graph:
    """Ask for a task's session until the thread that makes it is done."""
    deadline = time.monotonic() + 20
    while (graph := graphs.get_if_kept(task)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return graph


def test_the_session_asked_longest_ago_makes_room(features: HandMade) -> None:
    graphs = task_graphs(features, room=2)
    first = graphs.get(0)
    graphs.get(1)
    assert graphs.get(0) is first
    graphs.get(2)
    assert graphs.kept == (0, 2)


def test_a_session_larger_than_the_limit_is_made_where_there_is_no_other_answer(features: HandMade) -> None:
    graphs = task_graphs(features, room=0)
    graphs.get(0)
    graphs.get(1)
    assert graphs.kept == (1,)
    assert [graphs.get_if_kept(3) for _ in range(5)] == [None] * 5


def test_a_task_asked_again_and_again_gets_a_session_and_meanwhile_none(features: HandMade) -> None:
    graphs = task_graphs(features, room=2)
    assert [graphs.get_if_kept(0) for _ in range(7)] == [None] * 7
    assert graphs.kept == ()
    graph = eventually(graphs, 0)
    assert graphs.get_if_kept(0) is graph


def test_tasks_asked_alike_do_not_take_each_others_place_but_one_asked_more_does(features: HandMade) -> None:
    graphs = task_graphs(features, room=1)
    eventually(graphs, 0)
    for _ in range(50):
        assert graphs.get_if_kept(0) is not None
        assert graphs.get_if_kept(1) is None
        time.sleep(0.002)  # in which a session could be made
    for _ in range(200):
        graphs.get_if_kept(1)
    eventually(graphs, 1)
    assert graphs.kept == (1,)


def test_of_many_tasks_asked_alike_chance_lets_hardly_one_take_anothers_place() -> None:
    made = []

    def make(task: int) -> Any:
        made.append(task)
        return object()

    graphs = TaskGraphs(make, lambda _: 1, limit=20)
    for task in np.random.default_rng(0).integers(0, 400, 12_000).tolist():
        graphs.get_if_kept(task)
        if graphs._maker is not None:
            graphs._maker.join()
    assert len(graphs.kept) == 20
    assert len(made) <= 25


def test_a_task_whose_session_cannot_be_made_is_not_tried_again(
    features: HandMade, caplog: pytest.LogCaptureFixture
) -> None:
    tried = []

    def make(task: int) -> Graph:
        tried.append(task)
        raise OSError("the disk is gone")

    graphs = TaskGraphs(make, lambda _: 1, limit=1)
    deadline = time.monotonic() + 20
    while not caplog.records:
        assert graphs.get_if_kept(0) is None
        assert time.monotonic() < deadline
    for _ in range(50):
        assert graphs.get_if_kept(0) is None
    assert tried == [0]


def test_what_was_asked_long_ago_counts_less(features: HandMade) -> None:
    graphs = task_graphs(features, room=1)
    for _ in range(4000):
        graphs.get_if_kept(0)
    eventually(graphs, 0)
    for _ in range(4100):
        graphs.get_if_kept(1)
    eventually(graphs, 1)
    assert graphs.kept == (1,)


@pytest.mark.parametrize(("own", "pays"), [(0.001, True), (0.004, False)])
def test_a_trial_is_won_by_the_faster_by_far(own: float, pays: bool) -> None:
    assert own_sessions_pay([0, 1], lambda _: time.sleep(own), lambda _: time.sleep(0.004)) is pays
    assert not own_sessions_pay([], lambda _: None, lambda _: time.sleep(0.004))


def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Mapping[str, Any]]]:
    """Return what will be run from now on: the graph's file, and what it was fed."""
    runs: list[tuple[str, Mapping[str, Any]]] = []
    run: Run = Graph.run

    def record(graph: Graph, feeds: Mapping[str, Any], stop: Any = None) -> tuple[Any, Any]:
        runs.append((graph._name, feeds))
        return run(graph, feeds, stop)

    monkeypatch.setattr(Graph, "run", record)
    return runs


def auto(features: HandMade, monkeypatch: pytest.MonkeyPatch, *, pays: bool) -> Engine:
    """Return an engine whose trial has ended that way."""

    def trial(tasks: Sequence[int], own: Callable[[int], object], **_: Any) -> bool:
        for task in tasks:
            own(task)
        return pays

    monkeypatch.setattr("coterie.runtime.engine._runner.own_sessions_pay", trial)
    engine = load(features.path, threads=1)
    engine.warm()
    return engine


def test_a_few_questions_to_one_task_go_to_its_own_session_where_that_pays(
    features: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = auto(features, monkeypatch, pays=True)
    runs = watched(monkeypatch)
    engine.predict("topic", features.inputs(1))
    assert runs[-1][0] == "topic.onnx"
    for questions in (
        lambda: engine.predict("topic", features.inputs(9)),
        lambda: engine.predict(["topic", "mood"], features.inputs(2)),
    ):
        questions()
        assert runs[-1][0] == "router.onnx"


def test_the_router_answers_where_own_sessions_do_not_pay(
    features: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = auto(features, monkeypatch, pays=False)
    assert engine._runner._graphs.kept == ()
    runs = watched(monkeypatch)
    for _ in range(20):
        engine.predict("topic", features.inputs(1))
    assert {name for name, _ in runs} == {"router.onnx"}


def test_a_warm_engine_has_tried_real_sessions(features: HandMade, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = watched(monkeypatch)
    load(features.path, threads=1).warm()
    assert {name for name, _ in runs} == {"router.onnx", *(f"{name}.onnx" for name in features.names)}
    runs.clear()
    load(features.path, threads=1, session_bytes=0).warm()
    assert {name for name, _ in runs} == {"router.onnx"}


def test_answers_stay_the_same_while_sessions_come_and_go(
    features: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = auto(features, monkeypatch, pays=True)
    engine._runner._graphs._limit = 600 * 1024  # two of four
    questions = [(name, features.inputs(1 + seed % 3, seed)) for seed in range(40) for name in features.names]
    for answers in hammer(lambda question: engine.predict(*question), questions, threads=4):
        assert not isinstance(answers, Exception), answers
        for answer, (name, inputs) in zip(answers, questions, strict=True):
            np.testing.assert_allclose(answer.scores, features.scores(name, inputs), **CLOSE)
            expected = features.probabilities(name, inputs)
            assert (answer.probabilities is None) == (expected is None)


@pytest.mark.parametrize("mode", ["router", "task"])
def test_shared_weights_are_not_packed(features: HandMade, mode: Any) -> None:
    expected: tuple[tuple[Any, str], ...] = (("shared", "1"), ("fast", "0"))
    for weights, disabled in expected:
        engine = load(features.path, mode=mode, weights=weights, threads=1)
        graph = engine._runner._sessions.router() if mode == "router" else engine._runner._graphs.get(0)
        options = graph._session.get_session_options()
        try:
            entry = options.get_session_config_entry("session.disable_prepacking")
        except RuntimeError:
            entry = "0"
        assert entry == disabled


@pytest.mark.parametrize("mode", ["router", "task"])
def test_neither_inputs_nor_answers_are_copied(
    features: HandMade, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    engine = load(features.path, mode=mode, threads=1)
    runs = watched(monkeypatch)
    inputs = features.inputs(3)
    asked = engine.prepare("topic", inputs)
    scores, probabilities = engine.run(asked)
    assert all(np.shares_memory(inputs, given) for given in asked.inputs.values())
    assert any(np.shares_memory(inputs, fed) for fed in runs[-1][1].values())
    assert not scores.flags.owndata  # it is ONNX Runtime's own memory
    prediction = engine.assemble(asked, scores, probabilities)
    assert np.shares_memory(prediction.scores, scores)
    assert prediction.probabilities is not None
    assert np.shares_memory(prediction.probabilities, probabilities)


def test_bound_runs_answer_as_others_do(features: HandMade) -> None:
    """What a graph on a device does, as far as a machine without one can show it."""
    path = features.path / "router.onnx"
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (name,) = {argument.name for argument in session.get_inputs()} - {"row", "task"}
    feeds = {name: features.inputs(5), "row": np.arange(5), "task": np.arange(5) % 4}
    bound = Graph(session, path.name, bound=True).run(feeds)
    for one, other in zip(bound, Graph(session, path.name).run(feeds), strict=True):
        np.testing.assert_array_equal(one, other)


SETUP = """
import os
import sys

from coterie.runtime import load
from coterie.runtime._process import own_process

if sys.argv[2] == "own":
    own_process()
    own_process()
engine = load(sys.argv[1], threads=3)
before = len(os.listdir("/proc/self/task"))
runner = engine._runner
for graph in (runner._sessions.router(), *map(runner._graphs.get, range(len(engine.tasks)))):
    options = graph._session.get_session_options()
    for entry in (
        "session.use_env_allocators",
        "session.use_device_allocator_for_initializers",
        "session.intra_op.allow_spinning",
    ):
        try:
            print(options.get_session_config_entry(entry))
        except RuntimeError:
            print("unset")
print(len(os.listdir("/proc/self/task")) - before, "threads")
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
@pytest.mark.parametrize(("whose", "entries"), [("own", ["1", "1", "0"]), ("embedded", ["unset"] * 3)])
def test_onnx_runtime_is_set_up_for_the_process_only_where_that_is_coterie_s_own(
    features: HandMade, whose: str, entries: list[str]
) -> None:
    command = [sys.executable, "-c", SETUP, str(features.path), whose]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [*entries * 5, "0 threads"]


FREED = """
import numpy as np

from coterie.runtime._process import give_back_memory


def own():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("Anonymous"))


before = own()
arrays = [np.ones(12_000) for _ in range(1000)]
del arrays[:-1]
kept = own()
give_back_memory()
print(kept - before, own() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep less")
def test_memory_that_is_free_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    kept, left = map(int, done.stdout.split())
    assert kept > 80
    assert left < 10
