"""Anybody's network: a ``torch.nn.Module`` by its import path."""

from __future__ import annotations

import importlib
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from coterie.runtime.errors import ConfigError
from coterie.training.blocks._base import Block, BlockConfig
from coterie.training.blocks._shapes import InputShape

_ROWS = 3


class ModuleConfig(BlockConfig):
    """A module that is not coterie's; importing it runs its code."""

    kind: Literal["module"] = "module"
    path: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
    """``package.module:Class``, or a function that returns a module; it must be importable."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """What to call it with, by name."""

    def build(self, shape: InputShape) -> Module:
        """Import, make and check the module.

        Raises:
            ConfigError: If it cannot be imported, made, or run on such states; or if a row's result depends
                on other rows.
        """
        block = Module(self._make())
        _check(block, shape, f"block 'module' ({self.path})")
        return block

    def _make(self) -> nn.Module:
        name, _, attribute = self.path.partition(":")
        try:
            found: Any = importlib.import_module(name)
            for part in attribute.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"path: {self.path!r} cannot be imported ({error}): install its package, or add its folder "
                "to PYTHONPATH"
            ) from error
        if not callable(found):
            raise ConfigError(f"path: {self.path!r} is a {type(found).__name__}: name a class or a function")
        try:
            made = found(**self.arguments)
        except Exception as error:  # whatever a foreign constructor raises
            raise ConfigError(
                f"arguments: {self.path!r} cannot be made with them ({_said(error)})"
            ) from error
        if not isinstance(made, nn.Module):
            raise ConfigError(f"path: {self.path!r} makes a {type(made).__name__}, not a torch.nn.Module")
        return made


class Module(Block):
    """``[R, ...] -> [R, ...]``, whatever the module makes of its one argument.

    Its parameters that need no gradient are constants: no optimiser sees them.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        make_constants(module)

    def forward(self, states: Tensor) -> Tensor:
        """Run the module."""
        result: Tensor = self.module(states)
        return result


def make_constants(module: nn.Module) -> None:
    """Turn every parameter that needs no gradient into a buffer: a bank learns all parameters of a block."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                delattr(part, name)
                part.register_buffer(name, parameter.detach())


def _check(block: Module, shape: InputShape, what: str) -> None:
    for name, part in block.module.named_modules():
        if isinstance(part, _NormBase) and (part.track_running_stats or "BatchNorm" in type(part).__name__):
            raise ConfigError(
                f"{what}: {name or 'it'} is a {type(part).__name__}, whose result for a row depends on the "
                "other rows of its batch: use LayerNorm or GroupNorm"
            )
    block.eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        # Random rows, so that they can be told apart; the fork keeps the weights' seed as it was.
        torch.manual_seed(0)
        rows = _examples(shape)
        try:
            zero, together = block(shape.example(1)), block(rows)
            results = [(zero, 1), (together, _ROWS), *((block(row), 1) for row in torch.split(rows, 1))]
        except Exception as error:  # whatever a foreign forward raises
            raise ConfigError(f"{what} cannot take {shape} ({_said(error)})") from error
    block.train()
    for result, count in results:
        if not isinstance(result, Tensor) or result.dim() < 2 or len(result) != count:
            got = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise ConfigError(f"{what} gives {got} for {count} rows: it must give one tensor [{count}, ...]")
        if result.dtype != torch.float32:
            raise ConfigError(f"{what} gives {result.dtype}: states after a block are float32")
    alone = torch.cat([result for result, _ in results[2:]])
    if not torch.allclose(together, alone, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise ConfigError(
            f"{what}: a row's result depends on the rows beside it: it must depend on that row alone"
        )


def _examples(shape: InputShape) -> Tensor:
    rows = shape.example(_ROWS)
    if shape.tokens:
        return torch.randint_like(rows, 1, max(2, shape.vocabulary))
    return torch.randn_like(rows)


def _said(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
