"""The same requests to coterie and to MLServer, compared field by field; KServe's clients against coterie.

python -m benchmarks.serving.conformance
"""

from __future__ import annotations

import json
import math
import subprocess
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import tritonclient.grpc as triton
from rich.console import Console
from rich.table import Table
from tritonclient.utils import InferenceServerException

from benchmarks.common import write_result
from benchmarks.export.planted import planted_inputs, planted_model, task_by_task
from benchmarks.peers import HERE, environment
from benchmarks.peers.mlserver import running_mlserver
from coterie.exporter import About, export
from coterie.runtime import Engine, load
from coterie.runtime.manifest import Provenance
from coterie.runtime.serving import Addresses, running_server

TASKS, ROWS = 4, 3
TOLERANCE = 1e-5


def make_bundle(folder: Path) -> Engine:
    """Export four small untrained tasks."""
    model = planted_model(TASKS, clusters=(2,), experts=4, width=16)
    export(
        model,
        folder,
        reference=task_by_task(model),
        samples=planted_inputs(),
        about=About(Provenance(coterie="0")),
    )
    return load(folder, threads=1)


def requests(engine: Engine) -> list[tuple[str, str, str, Any]]:
    """Return name, method, path and body of every HTTP request."""
    task, tensor = engine.tasks[0].name, engine.bundle.manifest.inputs[0].name
    array = planted_inputs(ROWS)
    nested = {"name": tensor, "datatype": "FP32", "shape": list(array.shape), "data": array.tolist()}
    flat = nested | {"data": array.reshape(-1).tolist()}
    scores, both = [{"name": "scores"}], [{"name": "scores"}, {"name": "probabilities"}]
    model, infer = f"/v2/models/{task}", f"/v2/models/{task}/infer"
    return [
        ("live", "GET", "/v2/health/live", None),
        ("ready", "GET", "/v2/health/ready", None),
        ("server metadata", "GET", "/v2", None),
        ("model metadata", "GET", model, None),
        ("model metadata of a version", "GET", f"{model}/versions/1", None),
        ("model ready", "GET", f"{model}/ready", None),
        ("infer, flat data", "POST", infer, {"inputs": [flat], "outputs": both}),
        ("infer, nested data", "POST", infer, {"inputs": [nested], "outputs": both}),
        ("infer, with an id", "POST", infer, {"id": "seven", "inputs": [flat], "outputs": both}),
        ("infer, one output", "POST", infer, {"inputs": [flat], "outputs": scores}),
        (
            "infer, unknown parameters",
            "POST",
            infer,
            {"inputs": [flat], "outputs": both, "parameters": {"x": 1}},
        ),
        ("infer of a version", "POST", f"{model}/versions/1/infer", {"inputs": [flat], "outputs": both}),
        ("unknown model", "GET", "/v2/models/nobody", None),
        ("infer of an unknown model", "POST", "/v2/models/nobody/infer", {"inputs": [flat]}),
        ("infer without inputs", "POST", infer, {}),
        ("infer with a body that is no JSON", "POST", infer, "{"),
        (
            "infer with a wrong shape",
            "POST",
            infer,
            {"inputs": [flat | {"shape": [1, 3], "data": [1, 2, 3]}]},
        ),
        ("infer with an unknown datatype", "POST", infer, {"inputs": [flat | {"datatype": "FP99"}]}),
        ("infer with an unknown input", "POST", infer, {"inputs": [flat | {"name": "nothing"}]}),
        ("infer of an unknown output", "POST", infer, {"inputs": [flat], "outputs": [{"name": "nothing"}]}),
    ]


def over_http(address: str, method: str, path: str, body: Any) -> dict[str, Any]:
    """Return status and body of a response."""
    content = None if body is None else body if isinstance(body, str) else json.dumps(body)
    headers = {"content-type": "application/json"}
    response = httpx.request(method, f"http://{address}{path}", content=content, headers=headers)
    try:
        answer = response.json()
    except ValueError:
        answer = None
    return {"status": response.status_code, "body": answer}


def over_grpc(address: str | None, engine: Engine) -> dict[str, Any]:
    """Return what Triton's gRPC client is answered."""
    task = engine.tasks[0].name
    array = planted_inputs(ROWS)
    tensor = triton.InferInput(engine.bundle.manifest.inputs[0].name, list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    wanted = [triton.InferRequestedOutput(name) for name in ("scores", "probabilities")]
    with triton.InferenceServerClient(address) as client:
        answer = client.infer(task, [tensor], outputs=wanted, request_id="seven")
        response = answer.get_response()
        try:
            client.infer("nobody", [tensor])
            unknown = "OK"
        except InferenceServerException as error:
            unknown = str(error.status())
        return {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model ready": client.is_model_ready(task),
            "model metadata": client.get_model_metadata(task, as_json=True),
            "unknown model": unknown,
            "infer": {
                "id": response.id,
                "model_name": response.model_name,
                "model_version": response.model_version,
                "outputs": [
                    {
                        "name": each.name,
                        "datatype": each.datatype,
                        "shape": list(each.shape),
                        "data": answer.as_numpy(each.name).reshape(-1).tolist(),
                    }
                    for each in response.outputs
                ],
            },
        }


def differences(ours: Any, theirs: Any, at: str = "") -> list[str]:
    """Return where two answers differ; numbers may by the tolerance, and nested data is as good as flat."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            line
            for key in sorted({*ours, *theirs})
            for line in differences(ours.get(key), theirs.get(key), f"{at}.{key}" if at else key)
        ]
    if at.endswith("data") and isinstance(ours, list) and isinstance(theirs, list):
        same = np.allclose(np.ravel(ours), np.ravel(theirs), rtol=TOLERANCE, atol=TOLERANCE)
        return [] if same else [f"{at}: the numbers differ"]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [line for number, pair in pairs for line in differences(*pair, f"{at}[{number}]")]
    if (
        isinstance(ours, float)
        and isinstance(theirs, float)
        and math.isclose(ours, theirs, rel_tol=TOLERANCE)
    ):
        return []
    # The protocol lets what is empty be left out.
    return [] if _given(ours) == _given(theirs) else [f"{at}: {_short(ours)} here, {_short(theirs)} there"]


def compared(ours: Addresses, theirs: Addresses, engine: Engine) -> dict[str, list[str]]:
    """Return where the answers to each request differ."""
    found = {
        f"http: {name}": differences(over_http(ours.http, *rest), over_http(theirs.http, *rest))
        for name, *rest in requests(engine)
    }
    here, there = over_grpc(ours.grpc, engine), over_grpc(theirs.grpc, engine)
    return found | {f"grpc: {name}": differences(here[name], there[name]) for name in here}


def kserve(programs: Path, ours: Addresses, engine: Engine) -> dict[str, str]:
    """Ask coterie with KServe's clients; return what came of each call."""
    task, array = engine.tasks[0].name, planted_inputs(ROWS)
    arguments = [ours.http, str(ours.grpc), task, engine.bundle.manifest.inputs[0].name]
    done = subprocess.run(
        [str(programs / "python"), str(HERE / "kserve_asks.py"), *arguments, json.dumps(array.tolist())],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = engine.predict(task, array).scores.reshape(-1)
    outcomes = {}
    for name, answer in json.loads(done.stdout).items():
        right = answer is True or (
            answer["id"] == "k" and np.allclose(answer["outputs"]["scores"], expected, atol=TOLERANCE)
        )
        outcomes[name] = "right" if right else "wrong"
    return outcomes


def main() -> None:
    """Compare, print and write what was found."""
    console = Console()
    peers = {name: environment(name) for name in ("mlserver", "kserve")}
    result: dict[str, Any] = {
        "versions": {"coterie": version("coterie"), "tritonclient": version("tritonclient")},
        "skipped": {name: why for name, why in peers.items() if isinstance(why, str)},
    }
    for name, programs in peers.items():
        if isinstance(programs, Path):
            shown = subprocess.run(
                [
                    str(programs / "python"),
                    "-c",
                    f"import importlib.metadata as m; print(m.version('{name}'))",
                ],
                capture_output=True,
                text=True,
                check=True,
            )
            result["versions"][name] = shown.stdout.strip()
    with TemporaryDirectory() as scratch:
        engine = make_bundle(Path(scratch) / "bundle")
        with running_server(Path(scratch) / "bundle", threads=1) as ours:
            if isinstance(peers["mlserver"], Path):
                folder = Path(scratch) / "mlserver"
                folder.mkdir()
                with running_mlserver(peers["mlserver"], engine.bundle, folder) as theirs:
                    result["mlserver"] = compared(ours, theirs, engine)
            if isinstance(peers["kserve"], Path):
                result["kserve"] = kserve(peers["kserve"], ours, engine)
    table = Table("request", "difference")
    for name, lines in result.get("mlserver", {}).items():
        table.add_row(name, "\n".join(lines) or "none")
    for name, outcome in result.get("kserve", {}).items():
        table.add_row(f"KServe's client, {name}", outcome)
    console.print(table)
    console.print(*(f"skipped {name}: {why}" for name, why in result["skipped"].items()))
    console.print(f"written to {write_result('serving_conformance', result).name}")


def _given(value: Any) -> Any:
    return None if value in ("", {}, []) else value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


if __name__ == "__main__":
    main()
