"""Blocks with unlike numbers of rows, and questions with unlike numbers of features, computed together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]
Call = Callable[[Weights, Tensor], Tensor]
"""``(weights [b, ...], states [b, rows, ...]) -> [b, rows, ...]``, each block on its own rows."""

_LEVELS = 2
"""Blocks are run together whose numbers of rows differ by a factor of less than 2 to this power."""


def run_ragged(call: Call, weights: Weights, states: Tensor, sizes: Tensor) -> Tensor:
    """Run each block on its rows, blocks with about as many rows in one go, padded to the most asked one.

    A call of a small block costs far more than its arithmetic: one at a time, a step would grow with b.

    Args:
        call: Runs several blocks, each on equally many rows.
        weights: ``[b, ...]`` by name.
        states: ``[P, ...]``, block by block.
        sizes: ``[b]`` int64, the number of rows of each block, none of them 0.

    Returns:
        ``[P, ...]`` in the same order.
    """
    counts = sizes.tolist()
    if len(set(counts)) == 1:
        return call(weights, states.reshape(len(counts), counts[0], *states.shape[1:])).flatten(0, 1)
    start = sizes.cumsum(0) - sizes
    results, place, done = [], torch.empty(len(states), dtype=torch.int64, device=states.device), 0
    levels = [(count.bit_length() - 1) // _LEVELS for count in counts]
    for level in sorted(set(levels)):
        own = [block for block, other in enumerate(levels) if other == level]
        blocks, rows = torch.tensor(own, device=states.device), max(counts[block] for block in own)
        size, slot = sizes[blocks].unsqueeze(1), torch.arange(rows, device=states.device)
        # Padding repeats a block's last row: what comes of it is not read, and has no gradient.
        source = start[blocks].unsqueeze(1) + torch.minimum(slot, size - 1)
        chosen = weights
        if len(own) < len(counts):
            chosen = {name: weight.index_select(0, blocks) for name, weight in weights.items()}
        padded = states.index_select(0, source.flatten()).reshape(*source.shape, *states.shape[1:])
        results.append(call(chosen, padded).flatten(0, 1))
        there = (slot < size).flatten().nonzero().flatten()
        place[source.flatten()[there]] = there + done
        done += len(own) * rows
    return (results[0] if len(results) == 1 else torch.cat(results)).index_select(0, place)


def mix_ragged(features: Tensor, index: Tensor, weights: Tensor, count: Tensor) -> Tensor:
    """Add up weighted features ``[P, ...]``, ``-> [Q, ...]``.

    There may be many questions about one input: features as often as they are needed would fill the memory.

    Args:
        features: ``[P, ...]``.
        index: ``[E]`` int64, the features needed, question by question.
        weights: ``[E]``, their weights.
        count: ``[Q]`` int64, how many of them are each question's; 0 gives zeros.
    """
    flat = features.flatten(1)
    start = count.cumsum(0) - count
    mixed = nn.functional.embedding_bag(index, flat, start, mode="sum", per_sample_weights=weights)
    return mixed.reshape(len(count), *features.shape[1:])
