"""Task graphs behind Triton, a model for each; runs in PyTriton's environment."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from tasks import SETTINGS, open_session, scores


def answering(session: onnxruntime.InferenceSession) -> Callable[..., list[np.ndarray]]:
    """Return what Triton calls with a batch."""

    @batch
    def infer(**inputs: np.ndarray) -> list[np.ndarray]:
        return [scores(session, next(iter(inputs.values())))]

    return infer


if __name__ == "__main__":
    grpc_port, metrics_port = SETTINGS["others"]
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=SETTINGS["port"],
        grpc_address="127.0.0.1",
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        for name, path in SETTINGS["graphs"].items():
            session = open_session(path)
            taken, given = session.get_inputs()[0], session.get_outputs()[0]
            triton.bind(
                model_name=name,
                infer_func=answering(session),
                inputs=[Tensor(name=taken.name, dtype=np.float32, shape=tuple(taken.shape[1:]))],
                outputs=[Tensor(name="scores", dtype=np.float32, shape=tuple(given.shape[1:]))],
                config=ModelConfig(
                    max_batch_size=SETTINGS["batch_rows"],
                    batcher=DynamicBatcher(max_queue_delay_microseconds=SETTINGS["delay_microseconds"]),
                ),
            )
        triton.serve()
