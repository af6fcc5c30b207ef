"""Tensors of the Open Inference Protocol: whatever goes in comes out, and what is none is refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from coterie.runtime import InvalidInputError
from coterie.runtime.serving.grpc import _codec as grpc_codec
from coterie.runtime.serving.grpc._protocol import messages
from coterie.runtime.serving.http import _codec as http_codec
from coterie.runtime.serving.models import _tensors as tensors

DTYPES = {name: np.dtype(kind) for name, kind in tensors.DATATYPES.items() if name not in ("BYTES", "BF16")}
SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
NUMBERS = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        # JSON has no numbers that are none.
        arrays.arrays(
            DTYPES[name],
            SHAPES,
            elements={"allow_nan": False, "allow_infinity": False} if DTYPES[name].kind == "f" else None,
        ),
    )
)
WORDS = arrays.arrays(object, SHAPES, elements=st.binary(max_size=8), fill=st.nothing())


@given(NUMBERS)
def test_numbers_survive_bytes_and_json(made: tuple[str, Any]) -> None:
    name, array = made
    shape = list(array.shape)
    raw = tensors.from_raw("x", name, shape, tensors.to_raw(array)).array
    text = tensors.from_json("x", name, shape, json.loads(json.dumps(tensors.to_json(array)))).array
    nested = tensors.from_json("x", name, shape, json.loads(json.dumps(array.tolist()))).array
    for back in (raw, text, nested):
        np.testing.assert_array_equal(back, array)
        assert back.dtype == array.dtype


@given(WORDS)
def test_words_survive_as_triton_reads_and_writes_them(array: Any) -> None:
    raw = tensors.to_raw(array)
    assert raw == (serialize_byte_tensor(array).item() if array.size else b"")
    assert deserialize_bytes_tensor(raw).tolist() == array.reshape(-1).tolist()
    back = tensors.from_raw("x", "BYTES", list(array.shape), raw).array
    assert (back.shape, back.reshape(-1).tolist()) == (array.shape, array.reshape(-1).tolist())


@given(
    st.sampled_from(sorted(tensors.DATATYPES)), st.lists(st.integers(-2, 1 << 63), max_size=4), st.binary()
)
def test_bytes_are_a_tensor_or_refused(name: str, shape: list[int], raw: bytes) -> None:
    with contextlib.suppress(InvalidInputError):
        assert list(tensors.from_raw("x", name, shape, raw).array.shape) == shape


@given(st.sampled_from(sorted(tensors.DATATYPES)), JSON, JSON)
def test_json_is_a_tensor_or_refused(name: str, shape: Any, data: Any) -> None:
    with contextlib.suppress(InvalidInputError):
        assert list(tensors.from_json("x", name, shape, data).array.shape) == shape


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()), st.none() | st.text(max_size=4))
def test_a_body_is_a_request_or_refused(body: bytes, length: str | None) -> None:
    with contextlib.suppress(InvalidInputError):
        http_codec.decode("model", "", body, length)


@given(st.binary(max_size=200))
def test_bytes_of_grpc_are_a_request_or_refused(data: bytes) -> None:
    with contextlib.suppress(InvalidInputError):
        grpc_codec.decode(grpc_codec.checked(grpc_codec.reader("ModelInferRequest")(data)))


@given(NUMBERS)
def test_typed_contents_survive(made: tuple[str, Any]) -> None:
    name, array = made
    if name == "FP16":
        return  # has no typed contents
    request = messages()["ModelInferRequest"](model_name="m")
    entry = request.inputs.add(name="x", datatype=name, shape=array.shape)
    getattr(entry.contents, grpc_codec._CONTENTS[name]).extend(array.reshape(-1).tolist())
    read = grpc_codec.reader("ModelInferRequest")(request.SerializeToString())
    np.testing.assert_array_equal(grpc_codec.decode(read).inputs["x"].array, array)


def test_whole_numbers_of_all_64_bits_stay_what_they_are() -> None:
    given = [[0, 2**64 - 1], [2**63, 2**53 + 1]]
    assert tensors.from_json("x", "UINT64", [2, 2], given).array.tolist() == given
    flat = [*given[0], *given[1]]
    assert tensors.from_values("x", "UINT64", [4], flat).array.tolist() == flat
    for wrong in ([2**63, -1], [2**64, 0], [2**63, 0.5]):
        with pytest.raises(InvalidInputError):
            tensors.from_json("x", "UINT64", [2], wrong)


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no message"):
        grpc_codec.checked(grpc_codec.reader("ModelInferRequest")(b"\xff"))
