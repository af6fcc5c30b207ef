"""What a person is shown of a bundle."""

from __future__ import annotations

from typing import get_args

from coterie.runtime.overview import BLOCKS_OF
from coterie.runtime.plan import StageKind


def test_the_blocks_of_every_kind_of_stage_have_a_name() -> None:
    assert set(BLOCKS_OF) == set(get_args(StageKind))
