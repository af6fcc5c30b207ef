"""Asks a server with KServe's own clients, and prints what they answer; runs in KServe's environment.

python kserve_asks.py HTTP_ADDRESS GRPC_ADDRESS MODEL INPUT ROWS_AS_JSON
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig


def request(model: str, name: str, rows: list[list[float]], *, binary: bool) -> InferRequest:
    """Return the question."""
    array = np.array(rows, dtype=np.float32)
    tensor = InferInput(name=name, shape=list(array.shape), datatype="FP32")
    tensor.set_data_from_numpy(array, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[tensor], request_id="k")


def plain(response: Any) -> dict[str, Any]:
    """Return an answer's outputs as lists."""
    outputs = {each.name: each.as_numpy() for each in response.outputs}
    return {
        "id": response.id,
        "model": response.model_name,
        "outputs": {
            name: [item.decode() if isinstance(item, bytes) else item for item in array.reshape(-1).tolist()]
            for name, array in outputs.items()
        },
    }


async def main(http: str, grpc: str, model: str, name: str, rows: list[list[float]]) -> dict[str, Any]:
    """Ask over both transports."""
    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    base = f"http://{http}"
    seen: dict[str, Any] = {
        "http.live": await rest.is_server_live(base),
        "http.ready": await rest.is_server_ready(base),
        "http.model_ready": await rest.is_model_ready(base, model),
    }
    for binary in (False, True):
        asked = request(model, name, rows, binary=binary)
        key = "http.infer.binary" if binary else "http.infer.json"
        seen[key] = plain(await rest.infer(base, asked, model_name=model))
    await rest.close()
    async with InferenceGRPCClient(url=grpc) as client:
        seen["grpc.live"] = await client.is_server_live()
        seen["grpc.ready"] = await client.is_server_ready()
        seen["grpc.model_ready"] = await client.is_model_ready(model)
        seen["grpc.infer"] = plain(await client.infer(request(model, name, rows, binary=False)))
    return seen


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:5], json.loads(sys.argv[5])))))
