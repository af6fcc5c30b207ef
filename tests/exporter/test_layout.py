"""Where tensors lie in the weight file, and that those that stay are not moved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from coterie.exporter._weights import Array, WeightFile, WeightStore, content_hash
from coterie.runtime.errors import ExportError

Arrays = list[Array]


def numbers(seed: int, *shape: int, dtype: str = "float32") -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * 50).astype(dtype)


def write(folder: Path, name: str, arrays: Arrays, before: WeightFile | None = None) -> WeightFile:
    """Write a weight file and check what safetensors' own reader finds in it."""
    store = WeightStore()
    for array in arrays:
        store.add(array)
    written = store.write(folder / name, before)
    wanted = {content_hash(array): array for array in arrays}
    found = load_file(folder / name)
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[key], array) for key, array in wanted.items())
    return written


def starts(weights: WeightFile, arrays: Arrays) -> list[int]:
    return [weights.spans[content_hash(array)].start for array in arrays]


OLD = [numbers(seed, 3, 4) for seed in range(5)]


def test_a_tensor_of_the_same_size_takes_the_place_of_one_that_is_gone(tmp_path: Path) -> None:
    before = write(tmp_path, "before", OLD)
    new = numbers(9, 4, 3)
    after = write(tmp_path, "after", [*OLD[1:], new], before)
    assert starts(after, OLD[1:]) == starts(before, OLD[1:])
    assert starts(after, [new]) == starts(before, OLD[:1])
    assert (tmp_path / "after").stat().st_size == (tmp_path / "before").stat().st_size


def test_more_tensors_are_put_at_the_end(tmp_path: Path) -> None:
    before = write(tmp_path, "before", OLD)
    new = [numbers(8, 7), numbers(9, 2, 2)]
    after = write(tmp_path, "after", [*new, *OLD], before)
    assert starts(after, OLD) == starts(before, OLD)
    assert min(starts(after, new)) == max(starts(before, OLD)) + OLD[0].nbytes


@pytest.mark.parametrize(
    "arrays",
    [
        pytest.param(OLD[1:], id="one is gone"),
        pytest.param([*OLD[1:], numbers(9, 5, 5)], id="one is gone, and another is larger"),
        pytest.param([*OLD, *(numbers(seed, 1) for seed in range(100, 160))], id="no room in the header"),
    ],
)
def test_where_places_cannot_be_kept_the_file_is_that_of_a_fresh_export(
    tmp_path: Path, arrays: Arrays
) -> None:
    before = write(tmp_path, "before", OLD)
    write(tmp_path, "after", arrays, before)
    write(tmp_path, "fresh", arrays)
    assert (tmp_path / "after").read_bytes() == (tmp_path / "fresh").read_bytes()


def test_the_order_in_which_tensors_are_added_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, "one", OLD)
    write(tmp_path, "other", OLD[::-1])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_type_that_the_format_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="complex64"):
        write(tmp_path, "file", [np.zeros(3, dtype=np.complex64)])


some = st.lists(
    st.tuples(
        st.integers(0, 30), st.sampled_from([0, 1, 3, 8]), st.sampled_from(["float32", "int8", "int64"])
    ).map(lambda drawn: numbers(drawn[0], drawn[1], dtype=drawn[2])),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(before=some, after=some)
def test_any_file_is_whole_and_aligned_whatever_it_replaces(
    tmp_path_factory: pytest.TempPathFactory, before: Arrays, after: Arrays
) -> None:
    folder = tmp_path_factory.mktemp("layout")
    written = write(folder, "after", after, write(folder, "before", before))
    for array in after:
        assert written.spans[content_hash(array)].start % array.dtype.itemsize == 0
