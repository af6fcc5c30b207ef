"""Forgeries of a graph: valid ONNX that names other files, asks for more than there is, or never ends."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

Forgery = Callable[[onnx.ModelProto, random.Random, Path, Path], None]


def _external(model: onnx.ModelProto) -> list[TensorProto]:
    return [tensor for tensor in model.graph.initializer if tensor.external_data]


def _set(tensor: TensorProto, key: str, value: str) -> None:
    for entry in tensor.external_data:
        if entry.key == key:
            entry.value = value


def other_file(model: onnx.ModelProto, choose: random.Random, folder: Path, secret: Path) -> None:
    """Weights from a file that is not the bundle's, reached in every way there is."""
    tensors = _external(model) or [model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT)]
    tensor = choose.choice(tensors)
    tensor.data_location = TensorProto.EXTERNAL
    way = choose.choice(
        ("up", "absolute", "link", "hard link", "folder link", "beside", "null", "dot", "proc")
    )
    name = f"odd-{choose.randrange(1 << 30)}"
    if way == "link":
        (folder / name).symlink_to(secret)
    elif way == "hard link":
        (folder / name).hardlink_to(secret)
    elif way == "folder link":
        (folder / name).symlink_to(secret.parent)
        name = f"{name}/{secret.name}"
    elif way == "beside":
        (folder / name).write_bytes(bytes(1 << 16))
    places = {
        "up": os.path.relpath(secret, folder),
        "absolute": str(secret),
        "null": f"weights.safetensors\0{name}",
        "dot": "./weights.safetensors",
        "proc": "/proc/self/cwd/x",
    }
    _set(tensor, "location", places.get(way, name))
    _set(tensor, "offset", "0")
    if choose.random() < 0.2:
        tensor.external_data.add(key="location", value=str(secret))


def other_place(model: onnx.ModelProto, choose: random.Random, folder: Path, secret: Path) -> None:
    """Weights from a wrong place of the right file."""
    for tensor in _external(model)[:1]:
        key = choose.choice(("offset", "length", "location"))
        odd = (
            "-1",
            "0",
            "1",
            "3",
            str(1 << 40),
            str((1 << 63) - 4),
            "9" * 50,
            "x",
            "",
            " 8",
            "0x10",
            "\u0663",
        )
        _set(tensor, key, choose.choice(odd))


def other_shape(model: onnx.ModelProto, choose: random.Random, folder: Path, secret: Path) -> None:
    """A tensor that says it is larger than its data."""
    tensor = choose.choice(list(model.graph.initializer))
    dims = choose.choice(([1 << 40], [1 << 62, 4], [-1, 4], [], [0], [3] * 100, [(1 << 63) - 1] * 8))
    del tensor.dims[:]
    tensor.dims.extend(dims)
    if choose.random() < 0.3:
        tensor.data_type = choose.choice((0, 2, 8, 16, 99, -1))


def bomb(model: onnx.ModelProto, choose: random.Random, folder: Path, secret: Path) -> None:
    """A few bytes that ask for gigabytes: at once while loading, or at the first question."""
    graph = model.graph
    size = 1 << choose.choice((33, 36, 40, 50, 62))
    graph.initializer.append(helper.make_tensor("bomb.size", TensorProto.INT64, [1], [size]))
    source = "bomb.size"
    nodes = []
    if choose.random() < 0.5:
        nodes = [
            helper.make_node("Shape", [graph.input[0].name], ["bomb.shape"], start=0, end=1),
            helper.make_node("Mul", ["bomb.shape", "bomb.size"], ["bomb.times"]),
        ]
        source = "bomb.times"
    nodes += [
        helper.make_node("ConstantOfShape", [source], ["bomb.much"]),
        helper.make_node("ReduceMax", ["bomb.much"], ["bomb.one"], keepdims=0),
    ]
    _use(graph, nodes, "bomb.one")


def loop(model: onnx.ModelProto, choose: random.Random, folder: Path, secret: Path) -> None:
    """A loop without an end."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("v", TensorProto.FLOAT, []),
        ],
        [value("on", TensorProto.BOOL, []), value("w", TensorProto.FLOAT, [])],
    )
    graph = model.graph
    graph.initializer.extend(
        [
            helper.make_tensor("loop.times", TensorProto.INT64, [], [1 << 62]),
            helper.make_tensor("loop.go", TensorProto.BOOL, [], [True]),
            helper.make_tensor("loop.start", TensorProto.FLOAT, [], [0.0]),
        ]
    )
    nodes = [helper.make_node("Loop", ["loop.times", "loop.go", "loop.start"], ["loop.end"], body=body)]
    if choose.random() < 0.5:
        _use(graph, nodes, "loop.end")
        return
    # The same, hidden in a branch.
    then, other = (
        helper.make_graph(each, name, [], [value(out, TensorProto.FLOAT, [])])
        for each, name, out in (
            (nodes, "then", "loop.end"),
            ([helper.make_node("Identity", ["loop.start"], ["loop.none"])], "else", "loop.none"),
        )
    )
    _use(
        graph,
        [helper.make_node("If", ["loop.go"], ["branch"], then_branch=then, else_branch=other)],
        "branch",
    )


def deep(model: onnx.ModelProto, choose: random.Random, folder: Path, secret: Path) -> None:
    """Graphs within graphs."""
    value = helper.make_tensor_value_info
    model.graph.initializer.extend(
        [
            helper.make_tensor("deep.go", TensorProto.BOOL, [], [True]),
            helper.make_tensor("deep.zero", TensorProto.FLOAT, [], [0.0]),
        ]
    )
    nodes, last = [helper.make_node("Identity", ["deep.zero"], ["deep.0"])], "deep.0"
    for depth in range(1, choose.choice((3, 12, 24))):
        inner = helper.make_graph(nodes, f"in{depth}", [], [value(last, TensorProto.FLOAT, [])])
        flat = helper.make_graph(
            [helper.make_node("Identity", ["deep.zero"], [f"flat.{depth}"])],
            f"flat{depth}",
            [],
            [value(f"flat.{depth}", TensorProto.FLOAT, [])],
        )
        last = f"deep.{depth}"
        nodes = [helper.make_node("If", ["deep.go"], [last], then_branch=inner, else_branch=flat)]
    _use(model.graph, nodes, last)


def foreign(model: onnx.ModelProto, choose: random.Random, folder: Path, secret: Path) -> None:
    """Operators, functions and settings that no export writes."""
    nodes = model.graph.node
    node = choose.choice(list(nodes))
    way = choose.randrange(6)
    if way == 0:
        node.domain = choose.choice(("com.microsoft", "evil", "ai.onnx.ml", "com.microsoft.nchwc"))
        model.opset_import.append(helper.make_opsetid(node.domain, 1))
    elif way == 1:
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        made = helper.make_node("EPContext", [], ["context"], domain="com.microsoft", embed_mode=0)
        made.attribute.append(helper.make_attribute("ep_cache_context", str(secret)))
        nodes.append(made)
    elif way == 2:
        model.functions.add(name=node.op_type, domain="", input=["a"], output=["b"])
    elif way == 3:
        model.metadata_props.add(key="ort_config", value='{"session_options": {"intra_op_num_threads": 999}}')
    elif way == 4:
        del model.opset_import[:]
        model.opset_import.append(helper.make_opsetid("", choose.choice((0, 1, 7, 99, 1 << 40))))
    else:
        model.ir_version = choose.choice((0, 1, 3, 99, 1 << 40))


def rewired(model: onnx.ModelProto, choose: random.Random, folder: Path, secret: Path) -> None:
    """Nodes removed, doubled, joined to others, of another kind, with other attributes."""
    nodes = model.graph.node
    node = choose.choice(list(nodes))
    way = choose.randrange(8)
    if way == 0:
        nodes.remove(node)
    elif way == 1:
        nodes.append(node)
    elif way == 2 and node.input:
        node.input[choose.randrange(len(node.input))] = choose.choice(
            [each for other in nodes for each in other.output]
        )
    elif way == 3:
        node.op_type = choose.choice(
            ("Add", "Gemm", "LSTM", "Softmax", "Split", "Concat", "ScatterND", "TopK", "x")
        )
    elif way == 4 and node.attribute:
        attribute = choose.choice(list(node.attribute))
        attribute.i = choose.choice((-1, 99, 1 << 62, -(1 << 63)))
    elif way == 5:
        choose.choice([*model.graph.input, *model.graph.output]).name = choose.choice(
            ("scores", "x", "", "inputs")
        )
    elif way == 6:
        for tensor in (*model.graph.input, *model.graph.output):
            for dim in tensor.type.tensor_type.shape.dim:
                dim.dim_value = choose.choice((-1, 0, 7, 1 << 62))
    else:
        model.graph.output.pop()


def numbers(model: onnx.ModelProto, choose: random.Random, folder: Path, secret: Path) -> None:
    """Small constants, which say where things are cut, gathered from and put: replaced by others."""
    own = [
        each
        for each in model.graph.initializer
        if each.data_type == TensorProto.INT64 and not each.external_data
    ]
    for tensor in choose.sample(own, min(len(own), 2)):
        count = len(tensor.raw_data) // 8 or len(tensor.int64_data)
        odd = [
            choose.choice((-(1 << 63), -1, 0, 1, 3, 1 << 20, 1 << 40, (1 << 63) - 1)) for _ in range(count)
        ]
        tensor.ClearField("raw_data")
        del tensor.int64_data[:]
        tensor.int64_data.extend(odd)


def _use(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], value: str) -> None:
    """Put nodes first, and add their value to the scores, so that none is left out."""
    made = helper.make_node("Add", ["honest.scores", value], ["scores"])
    for node in graph.node:
        for at, name in enumerate(node.output):
            if name == "scores":
                node.output[at] = "honest.scores"
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    at = 1 + max(index for index, node in enumerate(graph.node) if "honest.scores" in node.output)
    graph.node.insert(at, made)


FORGERIES: Sequence[Forgery] = (
    other_file,
    other_file,
    other_place,
    other_shape,
    bomb,
    loop,
    deep,
    foreign,
    rewired,
    rewired,
    numbers,
)
