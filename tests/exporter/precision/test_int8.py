"""int8 numbers, and the ONNX nodes that compute with them."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from coterie.exporter._builder import GraphBuilder, serialize
from coterie.exporter._precision import _int8
from coterie.exporter._weights import WeightFile

ROWS, SIZE, WIDTH = 9, 40, 24


def weights() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((SIZE, WIDTH)).astype(np.float32)


def states() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((ROWS, SIZE)).astype(np.float32)


def product(bias: np.ndarray, level: ort.GraphOptimizationLevel) -> ort.InferenceSession:
    """Return a session of ``x W + bias`` with W in int8."""
    builder = GraphBuilder("product", WeightFile("", {}))
    given = builder.input("x", "float32", ["R", SIZE])
    whole, scale = (builder.constant(each) for each in _int8.quantise(weights(), _int8.MATRIX_LEVELS, axis=0))
    result = builder.op("Add", _int8.matmul(builder, given, whole, scale, rank=2), builder.constant(bias))
    content = serialize(builder.finish([("y", result, "float32", ["R", WIDTH])]))
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("axis", [0, 1, None])
@pytest.mark.parametrize("levels", [_int8.MATRIX_LEVELS, _int8.TABLE_LEVELS])
def test_every_number_is_within_half_a_step(axis: int | None, levels: int) -> None:
    array = weights()
    whole, scale = _int8.quantise(array, levels, axis)
    assert whole.dtype == np.int8
    assert np.abs(whole).max() == levels
    step = scale if axis is None else np.expand_dims(scale, axis)
    assert (np.abs(whole * step - array) <= 0.5001 * step).all()


def test_a_column_of_zeros_stays_zeros() -> None:
    array = weights()
    array[:, 3] = 0.0
    whole, scale = _int8.quantise(array, _int8.TABLE_LEVELS, axis=0)
    assert not whole[:, 3].any()
    assert np.isfinite(scale).all()
    assert (scale > 0).all()


@pytest.mark.parametrize(
    "level", [ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL]
)
def test_a_product_with_a_bias_is_right_whatever_is_fused(level: ort.GraphOptimizationLevel) -> None:
    bias = np.full(WIDTH, 5.0, dtype=np.float32)
    (got,) = product(bias, level).run(None, {"x": states()})
    wanted = states() @ weights() + bias
    assert np.abs(got - wanted).max() < 0.03 * np.abs(wanted).max()


def test_a_row_s_answer_does_not_depend_on_the_rows_beside_it() -> None:
    session = product(np.zeros(WIDTH, dtype=np.float32), ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    crowd = states()
    crowd[4] *= 1e4  # with one scale for all rows, the others would round to nothing
    (together,) = session.run(None, {"x": crowd})
    for row in range(ROWS):
        (alone,) = session.run(None, {"x": crowd[row : row + 1]})
        assert np.array_equal(alone[0], together[row])


def test_no_rows_and_rows_of_zeros_are_answered() -> None:
    session = product(np.ones(WIDTH, dtype=np.float32), ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    (none,) = session.run(None, {"x": np.zeros((0, SIZE), dtype=np.float32)})
    assert none.shape == (0, WIDTH)
    (zeros,) = session.run(None, {"x": np.zeros((2, SIZE), dtype=np.float32)})
    assert np.array_equal(zeros, np.ones((2, WIDTH), dtype=np.float32))


@pytest.mark.parametrize("shape", [(100, 8), (100, 100), (100,)])
def test_rows_are_looked_up_within_half_a_step_of_their_group(shape: tuple[int, ...]) -> None:
    table = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
    table[:50] *= 100  # rows of other groups keep their own step
    builder = GraphBuilder("table", WeightFile("", {}))
    ids = builder.input("ids", "int64", ["R", 1])
    split = _int8.quantise_numbers if len(shape) == 1 else _int8.quantise_rows
    rows, scales, *middles = (builder.constant(each) for each in split(table))
    stored = _int8.Table(rows, scales, middles[0] if middles else None, shape)
    content = serialize(builder.finish([("y", stored.lookup(builder, ids), "float32", ["R", 1, *shape[1:]])]))
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    group = _int8.rows_of_a_group(shape)
    for index in range(100):
        (got,) = session.run(None, {"ids": np.array([[index]])})
        first = index // group * group
        own = table[first : first + group]
        # Numbers are counted from their middle, rows from 0.
        most = (own.max() - own.min()) / 2 if middles else np.abs(own).max()
        step = most / _int8.TABLE_LEVELS
        assert np.abs(got.reshape(shape[1:]) - table[index]).max() <= 0.5001 * step
    (none,) = session.run(None, {"ids": np.zeros((0, 1), dtype=np.int64)})
    assert len(none) == 0
    for index in (100, -101):
        with pytest.raises(Exception, match="out of data bounds"):
            session.run(None, {"ids": np.array([[index]])})


def test_integers_are_small_enough_for_processors_that_add_two_products_in_16_bits() -> None:
    assert 2 * 255 * _int8.MATRIX_LEVELS < 1 << 15
