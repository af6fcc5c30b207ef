"""Task graphs behind KServe's Python server, a model for each; runs in KServe's environment."""

from __future__ import annotations

from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from tasks import SETTINGS, open_session, scores


class TaskModel(Model):
    """One task graph."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self._session = open_session(path)
        self.ready = True

    async def predict(
        self, payload: InferRequest, headers: dict[str, str] | None = None, **_: Any
    ) -> InferResponse:
        """Answer one request."""
        del headers
        found = scores(self._session, payload.inputs[0].as_numpy())
        output = InferOutput(name="scores", shape=list(found.shape), datatype="FP32")
        output.set_data_from_numpy(found, binary_data=SETTINGS["binary"])
        return InferResponse(response_id=payload.id or "", model_name=self.name, infer_outputs=[output])


if __name__ == "__main__":
    models = [TaskModel(name, path) for name, path in SETTINGS["graphs"].items()]
    ModelServer(http_port=SETTINGS["port"], workers=1, enable_grpc=False, enable_latency_logging=False).start(
        models
    )
