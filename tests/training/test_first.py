"""Units alone decide nothing: what is standardised may be in any of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coterie.training import dataset_of
from coterie.training.first import first_block, target_scale


@pytest.mark.parametrize("unit", [1e-20, 1e-9, 1e-6, 1.0, 1e9])
def test_features_and_targets_of_any_unit_are_standardised(unit: float) -> None:
    generator = np.random.default_rng(0)
    inputs, target = generator.normal(3, 2, (400, 3)), generator.normal(-1, 4, 400)
    inputs[:, 2] = 0.1
    data = dataset_of(inputs * unit, target * unit, split=["train"] * 300 + ["dev"] * 100)
    block = first_block(data)
    assert isinstance(block, torch.nn.Module)
    given = torch.from_numpy(data.splits["train"].inputs.batch(np.arange(300)))
    standard = block(given)
    torch.testing.assert_close(standard[:, :2].mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(standard[:, :2].std(0), torch.ones(2), atol=1e-2, rtol=0)
    assert standard[:, 2].abs().max() < 1e-6 * max(unit, 1)
    shift, scale = target_scale(data)
    assert float(shift[0, 0]) == pytest.approx(target[:300].mean() * unit, rel=1e-3)
    assert float(scale[0, 0]) == pytest.approx(target[:300].std() * unit, rel=1e-3)
