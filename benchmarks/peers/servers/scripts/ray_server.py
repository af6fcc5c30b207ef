"""Task graphs behind Ray Serve, multiplexed in one replica; runs in Ray's environment."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import numpy as np
import ray
from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.requests import Request
from starlette.responses import Response
from tasks import SETTINGS, open_session, scores


@serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
class Tasks:
    """A session for each task, opened when it is first asked."""

    @serve.multiplexed(max_num_models_per_replica=len(SETTINGS["graphs"]))
    async def session(self, task: str) -> Any:
        """Open a session."""
        return open_session(SETTINGS["graphs"][task])

    async def __call__(self, request: Request) -> Response:
        """Answer one question."""
        session = await self.session(serve.get_multiplexed_model_id())
        rows = json.loads(await request.body())["inputs"]
        found = await self.batched(session, rows[0]) if SETTINGS["batch_rows"] > 1 else scores(session, rows)
        return Response(json.dumps({"scores": found.tolist()}), media_type="application/json")

    @serve.batch(
        max_batch_size=max(2, SETTINGS["batch_rows"]), batch_wait_timeout_s=SETTINGS["batch_seconds"]
    )
    async def batched(self, sessions: list[Any], rows: list[list[float]]) -> list[np.ndarray]:
        """Answer what came together, a run for all that ask the same task."""
        answers: list[np.ndarray] = [np.empty(0)] * len(rows)
        for session in {id(each): each for each in sessions}.values():
            own = [place for place, each in enumerate(sessions) if each is session]
            for place, row in zip(own, scores(session, [rows[place] for place in own]), strict=True):
                answers[place] = row[None]
        return answers


async def until_told() -> None:
    """Wait for SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": SETTINGS["port"]})
    serve.run(Tasks.bind(), logging_config=LoggingConfig(enable_access_log=False))
    asyncio.run(until_told())
    ray.shutdown()
