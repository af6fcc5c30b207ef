"""Whatever the plan: the router, the task graphs and the frozen model give the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.exporter.making import Columns, LstmBlock, Maker, QuadraticHead, Uses, task, tensors_of

from coterie.exporter import _model
from coterie.exporter._builder import serialize
from coterie.exporter._divide import divide
from coterie.exporter._model import BoundModel, bind_model, prune
from coterie.exporter._router import router_graph
from coterie.exporter._task_graph import task_graph
from coterie.exporter._trace import Tracer
from coterie.exporter._verify import DividedRouter
from coterie.exporter._weights import WeightStore
from coterie.runtime.manifest import WEIGHTS, TensorSpec
from coterie.runtime.tasks import TaskSpec
from coterie.training.bank import Bank
from coterie.training.blocks import Block, InputShape, Joined, LinearConfig
from coterie.training.frozen import FrozenModel
from coterie.training.several import Arrays, apply, each, only
from coterie.training.stages import StitchedStage
from coterie.training.stages._stitched_columns import Stitched

D = 6
SHAPE = InputShape(dims=(D,))
KINDS = ("hard", "cluster", "gated", "scaled", "joined", "columns", "stitched", "lstm")


@pytest.fixture(autouse=True, scope="module")
def tracer() -> Iterator[None]:
    """One tracer for all examples: their architectures are the same few."""
    shared = Tracer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_model, "Tracer", lambda: shared)
        yield


@st.composite
def plans(draw: st.DrawFn) -> FrozenModel:
    """A model of two to four tasks and up to four stages in front of the heads."""
    torch.manual_seed(draw(st.integers(0, 1000), label="seed"))
    widths = draw(st.lists(st.integers(1, 3), min_size=2, max_size=4), label="widths")
    kinds = [draw(st.sampled_from(["classification", "multilabel", "regression"])) for _ in widths]
    tasks = tuple(
        task(f"t{number}", kind, max(width, 2) if kind == "classification" else width)
        for number, (kind, width) in enumerate(zip(kinds, widths, strict=True))
    )
    maker = Maker(tasks, TensorSpec(name="inputs", dtype="float32", shape=(None, D)))
    if draw(st.booleans(), label="several inputs"):
        maker = _several(draw, tasks)
    for number, kind in enumerate(
        draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4), label="stages")
    ):
        _add(draw, maker, f"s{number}", kind)
    if draw(st.booleans(), label="linear heads"):
        return maker.heads(D)
    heads = tuple(tensors_of(QuadraticHead(D, spec.width)) for spec in tasks)
    return maker.stage(
        "heads", "head", QuadraticHead(D, 2), heads, [{at: 1.0} for at in range(len(tasks))]
    ).done()


def _several(draw: st.DrawFn, tasks: tuple[TaskSpec, ...]) -> Maker:
    """Two or three inputs whose encodings have D numbers together; some by a kernel that needs rows."""
    widths = draw(st.sampled_from([(2, 4), (1, 2, 3)]), label="widths of the inputs")
    encoders: list[list[Block]] = []
    for width in widths:
        block = LinearConfig(width=width, activation="tanh").build(InputShape(dims=(width,)))
        encoders.append(draw(st.sampled_from([[], [block], [block, LstmBlock(width)]])))
    inputs = tuple(
        TensorSpec(name=f"x{at}", dtype="float32", shape=(None, width)) for at, width in enumerate(widths)
    )
    return Maker(tasks, inputs).bank("input", "hard", Joined(encoders), [{0: 1.0}] * len(tasks))


def _add(draw: st.DrawFn, maker: Maker, name: str, kind: str) -> None:
    tasks = len(maker.tasks)
    block, half = LinearConfig(width=D, activation="tanh"), LinearConfig(width=D // 2, activation="tanh")
    weight = st.sampled_from([0.5, 1.0, -1.25])
    one = [draw(st.integers(0, 2)) for _ in range(tasks)]
    match kind:
        case "hard":
            maker.bank(name, "hard", block.build(SHAPE), [{0: 1.0}] * tasks)
        case "cluster":
            maker.bank(name, "cluster", block.build(SHAPE), [{at: 1.0} for at in one])
        case "lstm":
            maker.bank(name, "cluster", LstmBlock(D), [{at: 1.0} for at in one])
        case "scaled":
            maker.bank(name, "gated", block.build(SHAPE), [{at: draw(weight)} for at in one])
        case "gated":
            chosen = st.dictionaries(st.integers(0, 3), weight, min_size=1)
            uses: Uses = [dict(sorted(draw(chosen).items())) for _ in range(tasks)]
            maker.bank(name, "gated", block.build(SHAPE), uses)
        case "joined":
            own = [{0: draw(weight), 1 + at: draw(weight)} for at in one]
            maker.bank(name, "shared_private", half.build(SHAPE), own, combine="concat")
        case "columns":
            maker.bank(name, "input_gated", Columns(D, 3), [{0: 1.0}] * tasks, columns=tuple(one))
        case "stitched":
            maker.built(_stitched(draw, name, tasks))


def _stitched(draw: st.DrawFn, name: str, tasks: int) -> StitchedStage:
    """Two layers of a column for each task, which take from few others, read at any depth or at both."""
    subspaces, skip = draw(st.integers(1, 2)), draw(st.booleans())
    make = partial(LinearConfig(width=D // subspaces, activation="tanh").build, SHAPE)
    reads = [(number, draw(st.integers(0, 1))) for number in range(tasks)]
    block = Stitched(
        [Bank(make, tasks * subspaces) for _ in range(2)],
        columns=tasks,
        subspaces=subspaces,
        axis=-1,
        reads=reads,
        readers=tasks if skip else 0,
    )
    with torch.no_grad():
        for alpha in block.alpha:
            alpha.copy_(torch.randn_like(alpha) * (torch.rand_like(alpha) < 0.4))
    return StitchedStage(name, tasks, block, range(tasks))


def _inputs(model: FrozenModel, generator: np.random.Generator, rows: int) -> Arrays:
    """Return random inputs."""
    shapes = [(rows, int(spec.shape[1] or 1)) for spec in model.inputs]
    return only(tuple(generator.standard_normal(shape).astype(np.float32) for shape in shapes))


def _bound(model: FrozenModel, folder: Path) -> BoundModel:
    """Write a model's graphs: ``router.onnx``, its two parts, and a number for each task."""
    store = WeightStore()
    samples = _inputs(model, np.random.default_rng(0), 4)
    bound = bind_model(prune(model), samples, store, lambda _: None)
    weights = store.write(folder / WEIGHTS)
    router = router_graph(bound, weights)
    parts = divide(router)
    for name, graph in (("router", router), ("host", parts.host), ("device", parts.device)):
        (folder / f"{name}.onnx").write_bytes(serialize(graph))
    for number in range(len(bound.tasks)):
        (folder / f"{number}.onnx").write_bytes(serialize(task_graph(bound, weights, number)))
    return bound


def _run(path: Path, **feeds: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["scores"], feeds)[0])


@pytest.mark.slow
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # making a failing plan smaller would take minutes
    suppress_health_check=list(HealthCheck),
)
@given(model=plans(), rows=st.integers(0, 5), questions=st.integers(1, 12), seed=st.integers(0, 99))
def test_the_router_the_task_graphs_and_torch_agree(
    model: FrozenModel, rows: int, questions: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    inputs = _inputs(model, generator, rows)
    feeds = dict(zip([spec.name for spec in model.inputs], each(inputs), strict=True))
    row = generator.integers(0, max(rows, 1), questions if rows else 0)
    task = generator.integers(0, len(model.tasks), len(row))
    wanted = model(apply(torch.from_numpy, inputs), torch.from_numpy(row), torch.from_numpy(task)).numpy()
    with TemporaryDirectory() as name:
        folder = Path(name)
        _bound(model, folder)
        scores = _run(folder / "router.onnx", **feeds, row=row, task=task)
        np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-4)
        parts = DividedRouter(folder, "host.onnx", "device.onnx")
        divided = parts.run({**feeds, "row": row, "task": task})["scores"]
        np.testing.assert_allclose(divided, scores, rtol=1e-6, atol=1e-6)
        for number, spec in enumerate(model.tasks):
            alone = _run(folder / f"{number}.onnx", **feeds)
            asked = task == number
            np.testing.assert_allclose(
                alone[row[asked]], scores[asked][:, : spec.width], rtol=1e-4, atol=1e-4
            )
            assert alone.shape == (rows, spec.width)
