from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tritonclient.utils import serialize_byte_tensor, triton_to_np_dtype

from coterie.runtime import InvalidInputError
from coterie.runtime.serving.models import _tensors as tensors

NUMBERS = [name for name in tensors.DATATYPES if name not in ("BYTES", "BF16", "BOOL")]


@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_survive_raw_and_json_as_triton_reads_them(datatype: str) -> None:
    array = np.array([[0, 1], [2, 100]], dtype=triton_to_np_dtype(datatype))
    raw = tensors.from_raw("x", datatype, [2, 2], array.tobytes())
    assert raw.array.dtype == array.dtype
    np.testing.assert_array_equal(raw.array, array)
    assert tensors.to_raw(raw.array) == array.tobytes()
    for data in (array.tolist(), array.reshape(-1).tolist()):
        np.testing.assert_array_equal(tensors.from_json("x", datatype, [2, 2], data).array, array)


def test_booleans_bytes_and_bf16() -> None:
    assert tensors.from_json("x", "BOOL", [2], [True, False]).array.tolist() == [True, False]
    assert tensors.from_raw("x", "BOOL", [2], b"\1\0").array.tolist() == [True, False]
    half = tensors.from_raw("x", "BF16", [2], b"\x80\x3f\x00\xc0")
    assert half.array.tolist() == [1.0, -2.0]
    words = np.array([b"ab", b"", "\u00e9".encode()], dtype=object)
    raw = serialize_byte_tensor(words).item()
    assert tensors.to_raw(words) == raw
    assert tensors.from_raw("x", "BYTES", [3, 1], raw).array.reshape(-1).tolist() == words.tolist()
    assert tensors.from_json("x", "BYTES", [3], ["ab", "", "\u00e9"]).array.tolist() == words.tolist()


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "says"),
    [
        ("FP99", [1], [1], "none of"),
        (None, [1], [1], "none of"),
        ("FP32", "1", [1], "'shape'"),
        ("FP32", [-1], [1], "'shape'"),
        ("FP32", [True], [1], "'shape'"),
        ("FP32", [1.0], [1], "'shape'"),
        ("FP32", [3], [1, 2], "do not make the shape"),
        ("FP32", [0, 1 << 62, 1 << 62], [1], "do not make the shape"),
        ("FP32", [2], [[1], [1, 2]], "ragged"),
        ("FP32", [1], ["1.0"], "not FP32"),
        ("FP32", [1], [True], "not FP32"),
        ("FP32", [1], [None], "not FP32"),
        ("FP32", [1], {"a": 1}, "list"),
        ("INT64", [1], [1.5], "not INT64"),
        ("INT64", [1], [1 << 70], "not INT64"),
        ("INT64", [1], [1 << 63], "outside INT64"),
        ("INT8", [1], [200], "outside INT8"),
        ("UINT8", [1], [-1], "outside UINT8"),
        ("BOOL", [1], [1], "not BOOL"),
        ("BYTES", [1], [1], "strings"),
        ("BYTES", [2], [["a"], "b"], "strings"),
        ("BYTES", [1], ["\ud800"], "surrogate"),
    ],
)
def test_json_that_is_not_what_it_says_is_refused(datatype: Any, shape: Any, data: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        tensors.from_json("x", datatype, shape, data)


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "says"),
    [
        ("FP32", [2], b"\0" * 7, "7 bytes for FP32"),
        ("FP32", [1 << 60], b"\0" * 8, "8 bytes"),
        ("BYTES", [1], b"\1\0\0", "ends inside a length"),
        ("BYTES", [1], b"\xff\xff\xff\xffab", "reaches past"),
        ("BYTES", [2], b"\1\0\0\0a", "do not make the shape"),
    ],
)
def test_raw_bytes_that_do_not_fit_are_refused(datatype: str, shape: Any, raw: bytes, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        tensors.from_raw("x", datatype, shape, raw)


def test_texts_must_be_utf8_and_one_a_row() -> None:
    with pytest.raises(InvalidInputError, match="element 1 is not UTF-8"):
        tensors.as_texts("text", np.array([b"a", b"\xff"], dtype=object))
    with pytest.raises(InvalidInputError, match="shape"):
        tensors.as_texts("text", np.array([[b"a", b"b"]], dtype=object))
    assert tensors.as_texts("text", np.array([[b"a"], [b"b"]], dtype=object)) == ["a", "b"]
