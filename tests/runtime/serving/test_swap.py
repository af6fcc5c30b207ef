"""Versions of a store, swapped while they are asked."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import time
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from coterie.runtime import Engine, UnknownTaskError, load
from coterie.runtime.batching import Batcher
from coterie.runtime.manifest import WEIGHTS
from coterie.runtime.serving import running_server
from coterie.runtime.serving.models._follow import Follower, load_served
from coterie.runtime.serving.models._models import Done, Models
from coterie.runtime.serving.models._questions import Answer, Question
from coterie.runtime.serving.models._tensors import Tensor
from coterie.runtime.store import Store, Trial

from ..gate import Gate
from ..handmade import HandMade, write_bundle

ROW = np.array([[1.0, -2.0, 0.5, 3.0]], dtype=np.float32)


class Seen:
    """What an observer is told."""

    def __init__(self) -> None:
        self.versions: Counter[str] = Counter()
        self.shadows: Counter[tuple[str, str]] = Counter()
        self.swaps: Counter[str] = Counter()

    def observe(self, done: Done) -> None:
        self.versions[done.version] += 1

    def shadowed(self, *, version: str, outcome: str) -> None:
        self.shadows[version, outcome] += 1

    def swapped(self, *, outcome: str) -> None:
        self.swaps[outcome] += 1

    def unloaded(self, version: str) -> None:
        self.swaps[f"unloaded {version}"] += 1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HandMade]:
    """Bundles that answer differently, by the number of the version they become."""
    folder = tmp_path_factory.mktemp("made")
    return {str(seed): write_bundle(folder / str(seed), seed=seed) for seed in range(1, 5)}


@pytest.fixture
def store(tmp_path: Path, made: dict[str, HandMade]) -> Store:
    """A store with all of them, which serves the first."""
    store = Store.create(tmp_path / "store")
    for number, each in made.items():
        assert store.add(each.path) == int(number)
    store.switch(1)
    return store


def warmed(path: Path) -> Engine:
    engine = load(path, threads=1)
    engine.warm()
    return engine


def followed(
    store: Store, work: Callable[[Models, Follower, Seen], Awaitable[None]], *, keep: int = 1
) -> None:
    async def run() -> None:
        seen = Seen()
        number, engine, failed = load_served(store, warmed)
        models = Models(Batcher(engine), max_rows=64, number=str(number), observer=seen)
        models.failed, models.ready = failed, True
        del engine
        follower = Follower(
            store,
            models,
            load=warmed,
            batcher=lambda engine, _: Batcher(engine),
            keep=keep,
            seconds=60,
            observer=seen,
        )
        await follower.look()
        await work(models, follower, seen)
        await follower.stop()
        await models.close()

    asyncio.run(run())


async def ask(models: Models, version: str = "") -> Answer:
    question = Question("topic", {"features": Tensor("FP32", ROW)}, version, ("scores",))
    return await models.answer(question, transport="test")


def is_of(made: dict[str, HandMade], answer: Answer) -> bool:
    """Return whether an answer has the numbers of the version that it names."""
    expected = made[answer.version].scores("topic", ROW)
    return np.allclose(answer.outputs["scores"].array, expected, atol=1e-4)


def test_a_new_version_takes_over_and_the_old_can_be_named(store: Store, made: dict[str, HandMade]) -> None:
    async def work(models: Models, follower: Follower, seen: Seen) -> None:
        before = await ask(models)
        store.switch(2)
        assert (await ask(models)).version == "1"  # until it is looked
        await follower.look()
        after, pinned = await ask(models), await ask(models, "1")
        assert [each.version for each in (before, after, pinned)] == ["1", "2", "1"]
        assert all(is_of(made, each) for each in (before, after, pinned))
        assert models.info("topic").versions == ("1", "2")
        with pytest.raises(UnknownTaskError, match="'3' is not loaded: there is '1', '2'"):
            await ask(models, "3")
        store.rollback()
        await follower.look()
        assert (await ask(models)).version == "1"
        assert seen.swaps == {"ok": 1}  # version 1 was still there

    followed(store, work)


def test_what_was_replaced_is_unloaded_after_its_last_answer(store: Store, made: dict[str, HandMade]) -> None:
    async def work(models: Models, follower: Follower, seen: Seen) -> None:
        gate = Gate(models.current.batcher.engine)
        engine = weakref.ref(models.current.batcher.engine)
        accepted = [asyncio.ensure_future(ask(models)) for _ in range(5)]
        await gate.busy()
        store.switch(2)
        await follower.look()
        assert list(models.loaded) == ["2"]
        assert is_of(made, await ask(models))  # and does not wait for the old one
        assert not any(each.done() for each in accepted)
        gate.open()
        answers = await asyncio.gather(*accepted)
        assert all(each.version == "1" and is_of(made, each) for each in answers)
        del gate, accepted, answers
        await follower.stop()
        assert seen.swaps == {"ok": 1, "unloaded 1": 1}
        gc.collect()
        assert engine() is None

    followed(store, work, keep=0)


def test_what_is_unloaded_leaves_memory_without_being_waited_for(store: Store) -> None:
    async def work(models: Models, follower: Follower, seen: Seen) -> None:
        router = weakref.ref(models.current.batcher.engine._runner._sessions.router())
        await ask(models)
        store.switch(2)
        await follower.look()
        await follower.stop()
        assert seen.swaps == {"ok": 1, "unloaded 1": 1}
        assert router() is None

    gc.disable()
    try:
        followed(store, work, keep=0)
    finally:
        gc.enable()


def test_a_text_that_is_still_being_read_is_not_lost(
    texts: HandMade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.create(tmp_path / "store")
    store.switch(store.add(texts.path))
    store.add(texts.path)
    reading, go_on = threading.Event(), threading.Event()
    prepare = Engine.prepare

    def slowly(engine: Engine, task: Any, inputs: Any) -> Any:
        reading.set()
        go_on.wait(10)
        return prepare(engine, task, inputs)

    async def work(models: Models, follower: Follower, seen: Seen) -> None:
        monkeypatch.setattr(Engine, "prepare", slowly)
        words = Tensor("BYTES", np.array([b"a good book"], dtype=object))
        asked = asyncio.ensure_future(models.answer(Question("mood", {"text": words}), transport="test"))
        await asyncio.to_thread(reading.wait, 10)
        store.switch(2)
        await follower.look()
        await asyncio.sleep(0.05)
        go_on.set()
        assert (await asked).version == "1"

    followed(store, work, keep=0)


def test_a_broken_version_leaves_the_old_one_and_says_why(store: Store) -> None:
    (store.folder(2) / WEIGHTS).write_bytes(b"short")

    async def work(models: Models, follower: Follower, seen: Seen) -> None:
        store.switch(2)
        for _ in range(3):
            await follower.look()
        assert (await ask(models)).version == "1"
        assert seen.swaps == {"failed": 1}  # it is not tried again and again
        assert "truncated" in models.failed["2"]
        assert "truncated" in store.failures()[2]
        assert str(store.path) not in models.failed["2"]
        shutil.copy(store.folder(1) / WEIGHTS, store.folder(2) / WEIGHTS)
        store.switch(3)
        await follower.look()
        assert ((await ask(models)).version, models.failed) == ("3", {})

    followed(store, work)


def test_a_server_that_starts_with_a_broken_version_serves_the_one_before(store: Store) -> None:
    store.switch(2)
    shutil.rmtree(store.folder(2))

    async def work(models: Models, follower: Follower, seen: Seen) -> None:
        assert (await ask(models)).version == "1"
        assert "no version 2" in models.failed["2"]
        assert seen.swaps == {}  # it was tried once, when the server started

    followed(store, work)


def test_a_damaged_pointer_changes_nothing(store: Store) -> None:
    async def work(models: Models, follower: Follower, seen: Seen) -> None:
        (store.path / "current.json").write_text("{")
        await follower.look()
        assert (await ask(models)).version == "1"
        store.rollback(2)
        await follower.look()
        assert (await ask(models)).version == "2"

    followed(store, work)


def test_a_canary_answers_its_share(store: Store, made: dict[str, HandMade]) -> None:
    async def work(models: Models, follower: Follower, seen: Seen) -> None:
        store.put_on_trial(Trial(version=2, share=0.25))
        await follower.look()
        answers = [await ask(models) for _ in range(400)]
        assert all(is_of(made, each) for each in answers)
        assert 60 < seen.versions["2"] < 140  # 100; the odds against are 1 to 300,000
        assert seen.versions["1"] == 400 - seen.versions["2"]
        assert (await ask(models, "1")).version == "1"
        store.switch(2)  # promoted
        await follower.look()
        assert {(await ask(models)).version for _ in range(20)} == {"2"}

    followed(store, work)


def test_a_shadow_is_compared_and_never_answers(store: Store, made: dict[str, HandMade]) -> None:
    same = store.add(made["1"].path)

    async def work(models: Models, follower: Follower, seen: Seen) -> None:
        for version in (same, 2):
            store.put_on_trial(Trial(version=version, share=1, shadow=True))
            await follower.look()
            assert {(await ask(models)).version for _ in range(10)} == {"1"}
            async with asyncio.timeout(5):
                while sum(seen.shadows.values()) < 10:
                    await asyncio.sleep(0.005)
            (compared,) = {outcome for each, outcome in seen.shadows if each == str(version)}
            assert compared == "same" if version == same else compared in ("scores", "labels")
            seen.shadows.clear()

    followed(store, work)


BODY = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": ROW.tolist()}]}


class Clients:
    """Ask a server without a pause, over both transports, and compare every answer with its version's."""

    def __init__(self, made: dict[str, HandMade], http: str, grpc_address: str) -> None:
        self.answered: Counter[str] = Counter()
        self.wrong: list[Any] = []
        self._made = made
        self._stop = threading.Event()
        asking = [(self._over_http, http), (self._over_grpc, grpc_address)] * 2
        self._threads = [threading.Thread(target=target, args=(address,)) for target, address in asking]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def asked(self, version: int, times: int) -> None:
        """Return when a version has answered so many times more."""
        before, deadline = self.answered[str(version)], time.monotonic() + 30
        while self.answered[str(version)] < before + times and not self.wrong:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _check(self, version: str, scores: Any) -> None:
        if not np.allclose(scores, self._made[version].scores("topic", ROW)[0], atol=1e-4):
            self.wrong.append((version, scores))
        self.answered[version] += 1

    def _over_http(self, address: str) -> None:
        with httpx.Client(base_url=f"http://{address}") as client:
            while not self._stop.is_set():
                response = client.post("/v2/models/topic/infer", json=BODY)
                if response.status_code != 200:
                    self.wrong.append(response.text)
                    return
                answer = response.json()
                self._check(answer["model_version"], answer["outputs"][0]["data"])

    def _over_grpc(self, address: str) -> None:
        request = service_pb2.ModelInferRequest(model_name="topic")
        request.inputs.add(name="features", datatype="FP32", shape=[1, 4])
        request.raw_input_contents.append(ROW.tobytes())
        with grpc.insecure_channel(address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while not self._stop.is_set():
                try:
                    answer = stub.ModelInfer(request)
                except grpc.RpcError as error:
                    self.wrong.append(error)
                    return
                self._check(answer.model_version, np.frombuffer(answer.raw_output_contents[0], np.float32))


def versions_when(address: str, holds: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + 30
    while not holds(told := httpx.get(f"http://{address}/versions").json()):
        assert time.monotonic() < deadline, told
        time.sleep(0.02)
    return told


@pytest.mark.slow
def test_no_request_is_lost_while_a_server_swaps(store: Store, made: dict[str, HandMade]) -> None:
    with running_server(store.path, threads=1, poll_seconds=0.05) as addresses:
        assert addresses.grpc is not None
        http = addresses.http
        with Clients(made, http, addresses.grpc) as clients:
            changes = [lambda n=number: store.switch(n) for number in (2, 3, 4)] + [store.rollback] * 3
            for change in changes:
                current = change().current
                versions_when(http, lambda told, current=current: told["current"] == str(current))
                clients.asked(current, 20)
            (store.folder(4) / WEIGHTS).write_bytes(b"short")
            store.switch(4)
            told = versions_when(http, lambda told: told["failed"])
            clients.asked(1, 20)
        metrics = httpx.get(f"http://{http}/metrics").text
        gone = httpx.post(f"http://{http}/v2/models/topic/versions/3/infer", json=BODY)
    assert clients.wrong == []
    assert set(clients.answered) == {"1", "2", "3", "4"}
    assert told["current"] == "1"
    assert "truncated" in told["failed"]["4"]
    assert str(store.path) not in str(told)
    assert (gone.status_code, "'3' is not loaded" in gone.json()["error"]) == (404, True)
    assert 'coterie_version_requests_total{outcome="ok",version="2"}' in metrics
    assert 'coterie_swaps_total{outcome="failed"} 1.0' in metrics
