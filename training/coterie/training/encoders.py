"""Several inputs: what encodes each of them, and the block that joins their encodings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coterie.runtime.errors import ConfigError
from coterie.runtime.manifest import TensorSpec
from coterie.training.blocks import (
    Block,
    Encoder,
    InputShape,
    Joined,
    WordsConfig,
    build_chain,
    output_shape,
    vector_of,
)


def join_inputs(
    encoders: Mapping[str, Encoder],
    inputs: Sequence[TensorSpec],
    shapes: Sequence[InputShape],
    first: Sequence[Block | None],
) -> tuple[Joined, InputShape]:
    """Make the block that encodes and joins several inputs; return it with the shape of its result.

    Args:
        encoders: What encodes each input, by its name; vectors may have none, and are taken as they are.
        inputs: The tensors.
        shapes: Their shapes, without the batch dimension.
        first: For each a block that learns nothing and comes before its encoder.

    Raises:
        ConfigError: With every encoder that does not fit its input; each message begins with the option.
    """
    mistakes = [
        f"inputs.{name}: the data has no such input; it has {', '.join(spec.name for spec in inputs)}"
        for name in encoders
        if name not in {spec.name for spec in inputs}
    ]
    made, sizes = [], []
    for spec, shape, block in zip(inputs, shapes, first, strict=True):
        blocks: list[Block] = []
        if block is not None:
            blocks.append(block)
            shape = _following(spec, block)  # noqa: PLW2901 - from here on
        try:
            encoder = encoders.get(spec.name, ())
            _no_own_vectors(encoder)
            chain, shape = build_chain(encoder, shape)  # noqa: PLW2901
            blocks += chain
            sizes.append(vector_of(shape))
        except ConfigError as error:
            mistakes.append(f"inputs.{spec.name}: {error}")
        made.append(blocks)
    if mistakes:
        raise ConfigError("the model's inputs cannot be encoded:", mistakes)
    return Joined(made), InputShape(dims=(sum(sizes),))


def _no_own_vectors(encoder: Encoder) -> None:
    for config in encoder:
        if isinstance(config, WordsConfig) and (config.vectors is not None or config.train is not None):
            raise ConfigError(
                "vectors from a file or of a training of their own are for a model of one input: leave out "
                "vectors and train"
            )


def _following(spec: TensorSpec, block: Block) -> InputShape:
    """Return the shape after an input's first block, which takes the raw input."""
    return output_shape(block, InputShape(dims=spec.shape[1:]))
