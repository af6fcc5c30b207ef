"""Frozen models made by hand: random weights, plans that hold every kind of stage."""

from __future__ import annotations

import numpy as np
import torch
from tests.exporter.making import (
    Columns,
    Embed,
    LstmBlock,
    Maker,
    Pool,
    QuadraticHead,
    Uses,
    all_of,
    task,
    tensors_of,
)

from coterie.runtime.manifest import TensorSpec
from coterie.training.blocks import (
    ConvConfig,
    ImageInput,
    InputShape,
    Joined,
    LinearConfig,
    MlpConfig,
    NgramBagConfig,
    Standardise,
    TextCnnConfig,
)
from coterie.training.frozen import FrozenModel
from coterie.training.several import Arrays, only
from coterie.training.stages import Site, StitchedConfig, StitchedStage


def features() -> FrozenModel:
    """Features, all kinds of stages and of tasks; expert 4 is used by nobody."""
    torch.manual_seed(1)
    tasks = (
        task("a", width=2),
        task("b", width=3),
        task("c", width=5),
        task("d", "multilabel", 4),
        task("e", "regression", 2),
        task("f", width=2),
        task("g", width=3),
    )
    shape = InputShape(dims=(8,))
    wide = InputShape(dims=(12,))
    experts = [
        {0: 0.5, 3: -1.25},
        {1: 1.0},
        {0: 0.3, 1: 0.7, 2: -0.4},
        {2: 2.0, 5: -0.125},
        {0: 1.0, 5: 1.0},
        {3: 0.75},
        {0: 0.3, 1: 0.7, 2: -0.4},
    ]
    return (
        Maker(tasks, TensorSpec(name="inputs", dtype="float32", shape=(None, 8)))
        .bank("scale", "hard", Standardise(torch.zeros(8), torch.ones(8)), all_of(tasks))
        .bank("trunk", "hard", LinearConfig(width=12).build(shape), all_of(tasks))
        .bank(
            "experts", "gated", MlpConfig(widths=(10, 12), activation="gelu").build(wide), experts, trained=8
        )
        .bank(
            "clusters2",
            "cluster",
            LinearConfig(width=12, residual=True, activation="tanh").build(wide),
            [{index % 2: 1.0} for index in range(7)],
        )
        .bank(
            "clusters3",
            "cluster",
            LinearConfig(width=12, activation="tanh").build(wide),
            [{(0, 1, 1, 2, 0, 2, 0)[index]: 1.0} for index in range(7)],
        )
        .heads(12)
    )


def shared() -> FrozenModel:
    """Clusters first, so that questions about one input share blocks deep into the model; equal heads."""
    torch.manual_seed(2)
    tasks = tuple(task(f"t{index}") for index in range(6))
    shape = InputShape(dims=(8,))
    model = (
        Maker(tasks, TensorSpec(name="inputs", dtype="float32", shape=(None, 8)))
        .bank("one", "cluster", LinearConfig(width=8).build(shape), [{index // 3: 1.0} for index in range(6)])
        .bank("two", "cluster", LinearConfig(width=8).build(shape), [{index // 2: 1.0} for index in range(6)])
        .bank(
            "all",
            "gated",
            LinearConfig(width=8).build(shape),
            [{0: 0.5, 1: 0.1 * index} for index in range(6)],
        )
        .bank("scaled", "gated", LinearConfig(width=8).build(shape), [{0: 0.5 + index} for index in range(6)])
        .heads(8)
    )
    model.banks[-1].tensors[4].update(model.banks[-1].tensors[1])
    return model


def images() -> FrozenModel:
    """Pixels, convolutions as experts on images, big and odd heads."""
    torch.manual_seed(3)
    tasks = (task("cat", width=3), task("dog", width=3), task("count", "regression", 1), task("sky", width=3))
    pixels = InputShape(dims=(1, 8, 8))
    flat = InputShape(dims=(3 * 4 * 4,))
    return (
        Maker(tasks, TensorSpec(name="pixels", dtype="uint8", shape=(None, 8, 8, 1)))
        .bank("scale", "hard", ImageInput(torch.zeros(1), torch.ones(1)), all_of(tasks))
        .bank(
            "maps",
            "gated",
            ConvConfig(filters=(3,), pool=1, flatten=False).build(pixels),
            [{0: 0.1, 1: -0.1}, {1: 0.2}, {0: 0.1, 2: 0.05}, {2: 0.1}],
        )
        .bank(
            "conv",
            "cluster",
            ConvConfig(filters=(3,)).build(InputShape(dims=(3, 8, 8))),
            [{0: 1.0}, {1: 1.0}, {0: 1.0}, {1: 1.0}],
        )
        .bank("top", "specific", LinearConfig(width=6).build(flat), [{index: 1.0} for index in range(4)])
        .stage(
            "heads",
            "head",
            QuadraticHead(6, 3),
            tuple(tensors_of(QuadraticHead(6, spec.width)) for spec in tasks),
            [{index: 1.0} for index in range(4)],
        )
        .done()
    )


def bag() -> FrozenModel:
    """Tokens through one bag of n-grams, then experts."""
    torch.manual_seed(4)
    tasks = (task("books"), task("dvd"), task("Books", "multilabel", 2))
    tokens = InputShape(dims=(None,), tokens=True, vocabulary=40)
    return (
        Maker(tasks, TensorSpec(name="tokens", dtype="int64", shape=(None, None)))
        .bank("bag", "hard", NgramBagConfig(width=8, ngrams=3, buckets=32).build(tokens), all_of(tasks))
        .bank(
            "top",
            "gated",
            LinearConfig(width=8).build(InputShape(dims=(8,))),
            [{0: 1.0}, {1: 0.5}, {0: 0.5, 1: 1.5}],
        )
        .heads(8)
    )


def textcnn() -> FrozenModel:
    """Tokens straight into experts and nothing else but heads."""
    torch.manual_seed(5)
    tasks = (task("x"), task("y", "regression", 1), task("z", width=4))
    tokens = InputShape(dims=(None,), tokens=True, vocabulary=40)
    block = TextCnnConfig(embedding=6, filters=5, kernels=(1, 2, 3)).build(tokens)
    return (
        Maker(tasks, TensorSpec(name="tokens", dtype="int64", shape=(None, None)))
        .bank("experts", "gated", block, [{0: 0.5, 1: 0.5}, {1: 1.0}, {0: 0.2, 2: -0.7}])
        .heads(15)
    )


def lstm() -> FrozenModel:
    """Blocks whose kernel ends the process when it is given no rows."""
    torch.manual_seed(6)
    tasks = tuple(task(f"t{index}", width=3) for index in range(4))
    return (
        Maker(tasks, TensorSpec(name="inputs", dtype="float32", shape=(None, 8)))
        .bank("lstm", "cluster", LstmBlock(5), [{index % 3: 1.0} for index in range(4)])
        .heads(5)
    )


def wide() -> FrozenModel:
    """Heads too large to be copied for each question, beside small ones."""
    torch.manual_seed(8)
    tasks = (
        task("many", width=600),
        task("small", width=3),
        task("also many", width=600),
        task("tiny", width=3),
    )
    shape = InputShape(dims=(8,))
    return (
        Maker(tasks, TensorSpec(name="inputs", dtype="float32", shape=(None, 8)))
        .bank(
            "trunk", "cluster", LinearConfig(width=64).build(shape), [{index // 2: 1.0} for index in range(4)]
        )
        .heads(64)
    )


def lone() -> FrozenModel:
    """One task and its head, nothing else."""
    torch.manual_seed(9)
    return Maker((task("only"),), TensorSpec(name="x", dtype="float32", shape=(None, 5))).heads(5)


def columns() -> FrozenModel:
    """Stages that compute every task's state at once, before and after stages whose blocks tasks choose."""
    torch.manual_seed(10)
    tasks = (task("a"), task("b", width=3), task("c", "regression", 1), task("d"), task("e"))
    shape = InputShape(dims=(8,))
    own, few = (3, 1, 0, 2, 3), (0, 1, 1, 0, 1)
    return (
        Maker(tasks, TensorSpec(name="inputs", dtype="float32", shape=(None, 8)))
        .bank("first", "stitched", Columns(8, 4), all_of(tasks), columns=own)
        .bank(
            "pairs",
            "shared_private",
            LinearConfig(width=3).build(shape),
            [{0: 1.0, 1 + index % 2: 1.0} for index in range(5)],
            combine="concat",
        )
        .bank(
            "weighted",
            "shared_private",
            LinearConfig(width=4).build(InputShape(dims=(6,))),
            [{index % 2: 0.5, 2: 1.0 + index} for index in range(5)],
            combine="concat",
        )
        .bank("last", "input_gated", Columns(8, 2), all_of(tasks), columns=few)
        .heads(8)
    )


def sequences() -> FrozenModel:
    """The same on sequence states, whose length differs from batch to batch."""
    torch.manual_seed(11)
    tasks = (task("x"), task("y", width=4), task("z"))
    private: Uses = [{0: 1.0, 1 + index: 0.5} for index in range(3)]
    return (
        Maker(tasks, TensorSpec(name="tokens", dtype="int64", shape=(None, None)))
        .bank("embed", "shared_private", Embed(40, 3), private, combine="concat")
        .bank("columns", "stitched", Columns(6, 3), all_of(tasks), columns=(2, 0, 1))
        .bank(
            "joined",
            "shared_private",
            LinearConfig(width=6).build(InputShape(dims=(6,))),
            private,
            combine="concat",
        )
        .bank("sums", "hard", Pool(), all_of(tasks))
        .heads(12)
    )


def stitched() -> FrozenModel:
    """Columns of two subspaces that take from few others, read at unlike depths, between clusters."""
    torch.manual_seed(12)
    tasks = (task("a"), task("b", width=3), task("c"), task("d"), task("e", "regression", 1))
    linear = LinearConfig(width=6, activation="tanh")
    config = StitchedConfig(layers=(linear, linear, linear), subspaces=2, depth={"d": 2, "e": 1})
    stage, _ = config.build(Site(name="columns", tasks=tasks, shape=InputShape(dims=(12,))))
    assert isinstance(stage, StitchedStage)
    with torch.no_grad():
        for alpha in stage.alphas():
            alpha.copy_(torch.eye(10) + torch.diag(torch.full((9,), 0.5), 1))
        stage.alphas()[1][6, 1] = -0.75
    wide = InputShape(dims=(12,))
    return (
        Maker(tasks, TensorSpec(name="inputs", dtype="float32", shape=(None, 8)))
        .bank(
            "clusters",
            "cluster",
            LinearConfig(width=12).build(InputShape(dims=(8,))),
            [{index % 2: 1.0} for index in range(5)],
        )
        .built(stage)
        .bank("top", "cluster", LinearConfig(width=8).build(wide), [{index // 3: 1.0} for index in range(5)])
        .heads(8)
    )


def several() -> FrozenModel:
    """A text, a picture and features, joined before anything is shared; the features stay as they are."""
    torch.manual_seed(13)
    tasks = (task("a", width=3), task("b", "multilabel", 2), task("c", "regression", 1))
    inputs = (
        TensorSpec(name="text", dtype="int64", shape=(None, None)),
        TensorSpec(name="picture", dtype="uint8", shape=(None, 8, 8, 1)),
        TensorSpec(name="table", dtype="float32", shape=(None, 3)),
    )
    words = InputShape(dims=(None,), tokens=True, vocabulary=50)
    bag = NgramBagConfig(width=5, ngrams=2, buckets=64).build(words)
    picture = [
        ImageInput(torch.zeros(1), torch.ones(1)),
        ConvConfig(filters=(4,)).build(InputShape(dims=(1, 8, 8))),
        LinearConfig(width=6).build(InputShape(dims=(64,))),
    ]
    joined = Joined([[bag], picture, []])
    expert = LinearConfig(width=8).build(InputShape(dims=(14,)))
    return (
        Maker(tasks, inputs)
        .bank("input", "hard", joined, all_of(tasks))
        .bank("experts", "gated", expert, [{0: 0.5, 1: -1.0}, {1: 1.0}, {0: 0.75, 2: 0.25}])
        .heads(8)
    )


def samples(model: FrozenModel, count: int = 21) -> Arrays:
    """Return inputs for a model; tokens of unlike lengths, padded with zeros."""
    return only(tuple(_samples(spec, count) for spec in model.inputs))


def _samples(spec: TensorSpec, count: int) -> np.ndarray:
    generator = np.random.default_rng(7)
    dims = [9 if size is None else size for size in spec.shape[1:]]
    if spec.dtype == "int64":
        tokens = generator.integers(1, 40, (count, *dims))
        lengths = generator.integers(2, dims[0] + 1, count)
        return np.where(np.arange(dims[0]) < lengths[:, None], tokens, 0)
    if spec.dtype == "uint8":
        return generator.integers(0, 256, (count, *dims), dtype=np.uint8)
    return generator.standard_normal((count, *dims)).astype(np.float32)


MAKERS = (features, shared, images, bag, textcnn, lstm, wide, lone, columns, sequences, stitched, several)
MODELS = {make.__name__: make for make in MAKERS}
