"""Small real bundles made by hand: ONNX graphs over one weight file, with NumPy as the oracle.

Three stages: a trunk (one block), clusters (two centroids for four tasks) and heads (one a task, all in one
tensor). The task graphs point into the stacked tensors; the router gathers from them.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import save

from coterie.runtime.manifest import MANIFEST, WEIGHTS, Manifest, with_checksum
from coterie.runtime.tasks import TaskSpec

OPSET = 18
FEATURES, HIDDEN, WIDEST, CLUSTERS = 4, 6, 3, 2
WORDS = ("good", "bad", "book", "film", "a", "very", "the", "dull")
TASKS = (
    TaskSpec(name="topic", kind="classification", labels=("arts", "sport", "news")),
    TaskSpec(name="mood", kind="classification", labels=("negative", "positive")),
    TaskSpec(name="tags", kind="multilabel", labels=("long", "loud", "new")),
    TaskSpec(name="price", kind="regression", labels=("euro",)),
)
ASSIGNMENT = (0, 1, 1, 0)


@dataclass(frozen=True)
class HandMade:
    """A bundle and what it must answer."""

    path: Path
    weights: dict[str, np.ndarray[Any, Any]]
    text: bool
    tasks: tuple[TaskSpec, ...] = TASKS
    names: tuple[str, ...] = field(default=tuple(task.name for task in TASKS))

    def inputs(self, rows: int, seed: int = 0) -> Any:
        """Return R random inputs: features [R, 4], or texts."""
        rng = np.random.default_rng(seed)
        if self.text:
            return [" ".join(rng.choice(WORDS, size=rng.integers(1, 6))) for _ in range(rows)]
        return rng.standard_normal((rows, FEATURES)).astype(np.float32)

    def scores(self, task: str, inputs: Any) -> np.ndarray[Any, Any]:
        """Return the task's scores [R, C], computed by NumPy."""
        index = self.names.index(task)
        spec, w = self.tasks[index], self.weights
        h = np.maximum(self._features(inputs) @ w["trunk.weight"] + w["trunk.bias"], 0)
        h = np.maximum(h @ w["clusters.weight"][ASSIGNMENT[index]], 0)
        return h @ w["heads.weight"][index, : spec.width].T + w["heads.bias"][index, : spec.width]

    def probabilities(self, task: str, inputs: Any) -> np.ndarray[Any, Any] | None:
        """Return the task's probabilities [R, C], computed by NumPy."""
        spec = self.tasks[self.names.index(task)]
        scores = self.scores(task, inputs)
        if spec.kind == "regression":
            return None
        if spec.kind == "multilabel":
            return 1 / (1 + np.exp(-scores))
        exp = np.exp(scores - scores.max(axis=1, keepdims=True))
        return exp / exp.sum(axis=1, keepdims=True)

    def _features(self, inputs: Any) -> np.ndarray[Any, Any]:
        if not self.text:
            return np.asarray(inputs, dtype=np.float32)
        table = self.weights["words.weight"]
        ids = [[WORDS.index(word) + 1 for word in text.split()] for text in inputs]
        return np.stack([table[row].mean(axis=0) for row in ids])


def write_bundle(
    folder: Path,
    *,
    text: bool = False,
    seed: int = 0,
    name: str = "handmade",
    weights: dict[str, np.ndarray[Any, Any]] | None = None,
) -> HandMade:
    """Write a bundle of four tasks over 4 features, or over texts of the eight ``WORDS``."""
    folder.mkdir(parents=True)
    weights = _weights(seed) if weights is None else weights
    blob = save({f"hash-of-{key}": value for key, value in weights.items()})
    (folder / WEIGHTS).write_bytes(blob)
    store = _Store(blob, weights)
    for index, task in enumerate(TASKS):
        onnx.save(_task_graph(store, index, task, text=text), folder / f"{task.name}.onnx")
    onnx.save(_router_graph(store, text=text), folder / "router.onnx")
    if text:
        _write_tokenizer(folder / "tokenizer.json")
    write_manifest(folder, text=text, name=name)
    return HandMade(folder, weights, text)


def write_manifest(folder: Path, *, text: bool, name: str = "handmade", **changes: Any) -> None:
    """Write the manifest for the files as they are now; ``changes`` replaces top-level entries."""
    files = {
        file.name: {"length": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in sorted(folder.iterdir())
        if file.name != MANIFEST
    }
    raw: dict[str, Any] = {
        "name": name,
        "inputs": [_input_spec(text)],
        "text": {"tokenizer": "tokenizer.json", "max_length": 5} if text else None,
        "tasks": [{"task": task.model_dump(), "graph": f"{task.name}.onnx"} for task in TASKS],
        "router": "router.onnx",
        "plan": _plan(),
        "tensors": _tensors(),
        "files": files,
        "parity": {"tolerance": 1e-4, "max_abs_error": 0.0, "graphs": len(TASKS) + 1, "inputs": 0},
        "provenance": {"coterie": "0.1.0"},
    }
    manifest = Manifest.model_validate(raw | changes)
    (folder / MANIFEST).write_text(manifest.dumps(), encoding="utf-8")


def edit_manifest(folder: Path, **changes: Any) -> None:
    """Replace top-level entries of a manifest, whatever they mean; its checksum is made to fit."""
    raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    (folder / MANIFEST).write_text(json.dumps(with_checksum(raw | changes)), encoding="utf-8")


def hammer(ask: Any, questions: Sequence[Any], threads: int) -> list[Any]:
    """Ask all questions from each of several threads at once; return every answer, thread by thread."""
    answers: list[Any] = [None] * threads
    start = threading.Barrier(threads)

    def work(index: int) -> None:
        start.wait()
        try:
            answers[index] = [ask(question) for question in questions]
        except Exception as error:
            answers[index] = error

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return answers


def _weights(seed: int) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    shapes = {
        "clusters.weight": (CLUSTERS, HIDDEN, HIDDEN),
        "heads.bias": (len(TASKS), WIDEST),
        "heads.weight": (len(TASKS), WIDEST, HIDDEN),
        "trunk.bias": (HIDDEN,),
        "trunk.weight": (FEATURES, HIDDEN),
        "words.weight": (len(WORDS) + 1, FEATURES),
    }
    weights = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    for index, task in enumerate(TASKS):
        weights["heads.weight"][index, task.width :] = 0
        weights["heads.bias"][index, task.width :] = 0
    return weights


class _Store:
    """Makes initialisers that point into the weight file."""

    def __init__(self, blob: bytes, weights: dict[str, np.ndarray[Any, Any]]) -> None:
        length = int.from_bytes(blob[:8], "little")
        header = json.loads(blob[8 : 8 + length])
        self._start = {key: 8 + length + header[f"hash-of-{key}"]["data_offsets"][0] for key in weights}

    def tensor(self, key: str, shape: Sequence[int], offset: int = 0) -> onnx.TensorProto:
        tensor = TensorProto(name=key, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": WEIGHTS, "offset": self._start[key] + offset, "length": 4 * int(np.prod(shape))}
        for name, value in place.items():
            tensor.external_data.add(key=name, value=str(value))
        return tensor


def _trunk(store: _Store, *, text: bool) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], Any]:
    """Return nodes that make ``h`` [R, H], their weights, and the graph's input."""
    node = helper.make_node
    weights = [store.tensor("trunk.weight", (FEATURES, HIDDEN)), store.tensor("trunk.bias", (HIDDEN,))]
    nodes = [
        node("MatMul", ["features", "trunk.weight"], ["t0"]),
        node("Add", ["t0", "trunk.bias"], ["t1"]),
        node("Relu", ["t1"], ["h"]),
    ]
    if not text:
        return nodes, weights, helper.make_tensor_value_info("features", TensorProto.FLOAT, ["R", FEATURES])
    weights += [
        store.tensor("words.weight", (len(WORDS) + 1, FEATURES)),
        helper.make_tensor("zero", TensorProto.INT64, [], [0]),
        helper.make_tensor("axis_1", TensorProto.INT64, [1], [1]),
        helper.make_tensor("axis_2", TensorProto.INT64, [1], [2]),
    ]
    words = [
        node("Gather", ["words.weight", "tokens"], ["w0"]),
        node("Greater", ["tokens", "zero"], ["w1"]),
        node("Cast", ["w1"], ["w2"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["w2", "axis_2"], ["w3"]),
        node("Mul", ["w0", "w3"], ["w4"]),
        node("ReduceSum", ["w4", "axis_1"], ["w5"], keepdims=0),
        node("ReduceSum", ["w2", "axis_1"], ["w6"], keepdims=1),
        node("Div", ["w5", "w6"], ["features"]),
    ]
    return words + nodes, weights, helper.make_tensor_value_info("tokens", TensorProto.INT64, ["R", "L"])


def _task_graph(store: _Store, index: int, task: TaskSpec, *, text: bool) -> onnx.ModelProto:
    node = helper.make_node
    nodes, weights, entry = _trunk(store, text=text)
    weights += [
        store.tensor("clusters.weight", (HIDDEN, HIDDEN), 4 * HIDDEN * HIDDEN * ASSIGNMENT[index]),
        store.tensor("heads.weight", (task.width, HIDDEN), 4 * WIDEST * HIDDEN * index),
        store.tensor("heads.bias", (task.width,), 4 * WIDEST * index),
    ]
    nodes += [
        node("MatMul", ["h", "clusters.weight"], ["c0"]),
        node("Relu", ["c0"], ["c"]),
        node("Gemm", ["c", "heads.weight", "heads.bias"], ["scores"], transB=1),
    ]
    names = ["scores"]
    if task.kind != "regression":
        kind = {"classification": "Softmax", "multilabel": "Sigmoid"}[task.kind]
        nodes.append(node(kind, ["scores"], ["probabilities"]))
        names.append("probabilities")
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["R", task.width]) for name in names]
    return _model(nodes, [entry], outputs, weights)


def _router_graph(store: _Store, *, text: bool) -> onnx.ModelProto:
    node = helper.make_node
    nodes, weights, entry = _trunk(store, text=text)
    count = len(TASKS)
    valid = [float(column < task.width) for task in TASKS for column in range(WIDEST)]
    kinds = {kind: [task.kind == kind for task in TASKS] for kind in ("classification", "multilabel")}
    weights += [
        store.tensor("clusters.weight", (CLUSTERS, HIDDEN, HIDDEN)),
        store.tensor("heads.weight", (count, WIDEST, HIDDEN)),
        store.tensor("heads.bias", (count, WIDEST)),
        helper.make_tensor("assignment", TensorProto.INT64, [count], ASSIGNMENT),
        helper.make_tensor("valid", TensorProto.FLOAT, [count, WIDEST], valid),
        helper.make_tensor("lowest", TensorProto.FLOAT, [], [-np.inf]),
        helper.make_tensor("last", TensorProto.INT64, [1], [-1]),
        helper.make_tensor("middle", TensorProto.INT64, [1], [1]),
        *(
            helper.make_tensor(kind, TensorProto.FLOAT, [count, 1], list(map(float, kinds[kind])))
            for kind in kinds
        ),
    ]
    nodes += [
        node("Gather", ["h", "row"], ["q0"]),
        node("Unsqueeze", ["q0", "middle"], ["q"]),
        node("Gather", ["assignment", "task"], ["cluster"]),
        node("Gather", ["clusters.weight", "cluster"], ["c0"]),
        node("MatMul", ["q", "c0"], ["c1"]),
        node("Relu", ["c1"], ["c2"]),
        node("Gather", ["heads.weight", "task"], ["d0"]),
        node("Transpose", ["d0"], ["d1"], perm=[0, 2, 1]),
        node("MatMul", ["c2", "d1"], ["d2"]),
        node("Squeeze", ["d2", "middle"], ["d3"]),
        node("Gather", ["heads.bias", "task"], ["d4"]),
        node("Add", ["d3", "d4"], ["scores"]),
        node("Gather", ["valid", "task"], ["v"]),
        node("Cast", ["v"], ["v_bool"], to=TensorProto.BOOL),
        node("Where", ["v_bool", "scores", "lowest"], ["s0"]),
        node("Softmax", ["s0"], ["s1"], axis=-1),
        node("Gather", ["classification", "task"], ["s2"]),
        node("Mul", ["s1", "s2"], ["s3"]),
        node("Sigmoid", ["scores"], ["m0"]),
        node("Mul", ["m0", "v"], ["m1"]),
        node("Gather", ["multilabel", "task"], ["m2"]),
        node("Mul", ["m1", "m2"], ["m3"]),
        node("Add", ["s3", "m3"], ["probabilities"]),
    ]
    inputs = [
        entry,
        *(helper.make_tensor_value_info(name, TensorProto.INT64, ["B"]) for name in ("row", "task")),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", WIDEST])
        for name in ("scores", "probabilities")
    ]
    return _model(nodes, inputs, outputs, weights)


def _model(nodes: Any, inputs: Any, outputs: Any, weights: Any) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "handmade", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def _input_spec(text: bool) -> dict[str, Any]:
    if text:
        return {"name": "tokens", "dtype": "int64", "shape": [None, None]}
    return {"name": "features", "dtype": "float32", "shape": [None, FEATURES]}


def _write_tokenizer(file: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    vocabulary = {"[PAD]": 0} | {word: index + 1 for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordLevel(vocabulary | {"[UNK]": len(vocabulary)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = Whitespace()
    # The table has no row for an unknown word: asking with one is how tests reach a refusal by the graph.
    tokenizer.save(os.fspath(file))


def _plan() -> dict[str, Any]:
    def stage(name: str, kind: str, blocks: int, uses: Sequence[int]) -> dict[str, Any]:
        return {
            "name": name,
            "kind": kind,
            "trained_blocks": blocks,
            "blocks": [
                {"name": f"{name}/{index}", "source": index, "parameters": 1} for index in range(blocks)
            ],
            "uses": [[use] for use in uses],
            "weights": [[1.0] for _ in uses],
        }

    stages = [
        stage("trunk", "hard", 1, [0] * len(TASKS)),
        stage("clusters", "cluster", CLUSTERS, ASSIGNMENT),
        stage("heads", "head", len(TASKS), range(len(TASKS))),
    ]
    return {"tasks": [task.name for task in TASKS], "stages": stages}


def _tensors() -> dict[str, Any]:
    def use(key: str, shape: Sequence[int], offset: int = 0) -> dict[str, Any]:
        return {
            "name": key.partition(".")[2],
            "tensor": f"hash-of-{key}",
            "shape": list(shape),
            "offset": offset,
        }

    blocks = {"trunk/0": [use("trunk.weight", (FEATURES, HIDDEN)), use("trunk.bias", (HIDDEN,))]}
    for index in range(CLUSTERS):
        blocks[f"clusters/{index}"] = [use("clusters.weight", (HIDDEN, HIDDEN), 4 * HIDDEN * HIDDEN * index)]
    for index, task in enumerate(TASKS):
        blocks[f"heads/{index}"] = [
            use("heads.weight", (task.width, HIDDEN), 4 * WIDEST * HIDDEN * index),
            use("heads.bias", (task.width,), 4 * WIDEST * index),
        ]
    return blocks
