"""Task graphs behind LitServe; runs in LitServe's environment."""

from __future__ import annotations

from typing import Any

import litserve
from tasks import SETTINGS, Sessions

Question = tuple[str, list[list[float]]]


class Tasks(litserve.LitAPI):
    """A session for each task, in one worker."""

    def setup(self, device: str) -> None:
        """Open the sessions."""
        del device
        self._sessions = Sessions()

    # Without annotations, from which LitServe would have FastAPI check every request and answer.
    def decode_request(self, request):
        """Return what is asked."""
        return request["task"], request["inputs"]

    def predict(self, question: Question) -> Any:
        """Answer one question."""
        return self._sessions.scores(*question)

    def encode_response(self, output):
        """Return an answer as JSON."""
        return {"scores": output.tolist()}


class BatchedTasks(Tasks):
    """The same, of what came together."""

    def batch(self, inputs: list[Question]) -> list[Question]:
        """Leave questions as they are: they ask different tasks, and are no one array."""
        return inputs

    def predict(self, questions: list[Question]) -> Any:
        """Answer what came together."""
        return self._sessions.grouped(questions)

    def unbatch(self, output: Any) -> Any:
        """Give each its own."""
        return output


if __name__ == "__main__":
    rows = SETTINGS["batch_rows"]
    api = BatchedTasks(max_batch_size=rows, batch_timeout=SETTINGS["batch_seconds"]) if rows > 1 else Tasks()
    server = litserve.LitServer(api, accelerator="cpu", fast_queue=SETTINGS["fast_queue"])
    server.run(
        host="127.0.0.1",
        port=SETTINGS["port"],
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
