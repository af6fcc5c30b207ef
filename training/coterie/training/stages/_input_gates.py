"""Gates that look at the input: how a state is divided among experts, by one gate or by one for each task."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from coterie.runtime.errors import ConfigError
from coterie.training.blocks import InputShape
from coterie.training.stages.gates._selectors import binary_codes, indecision, selectors

_SAME = 1e-10


class GateInput(nn.Module):
    """What gates read of a state, ``[S, ...] -> [S, D]``: vectors as they are, the mean of anything else.

    Of a sequence ``(L, D)`` it is the mean position, padding left out; of an image ``(C, H, W)`` the mean
    pixel.

    Attributes:
        size: D.
    """

    def __init__(self, shape: InputShape) -> None:
        super().__init__()
        known = [size for size in (shape.dims[0], shape.dims[-1]) if size is not None]
        if shape.tokens or not 1 <= len(shape.dims) <= 3 or not known:
            raise ConfigError(
                f"gates read vectors, sequences (length, D) or images, but the input is {shape}: put a stage "
                "that makes states of it before this one"
            )
        self.rank = len(shape.dims)
        self.size = known[0] if self.rank == 3 else known[-1]

    def forward(self, states: Tensor) -> Tensor:
        """Return vectors ``[S, D]``."""
        if self.rank == 1:
            return states
        if self.rank == 3:
            return states.mean(dim=(-2, -1))
        there = (states != 0).any(dim=-1, keepdim=True)
        return states.sum(dim=1) / there.sum(dim=1).clamp(min=1)


class InputGate(nn.Module):
    """Divides states among M experts, for G readers: ``[S, D] -> [S, G, M]``.

    With a column of inputs for each reader, ``[S, G, D]``, every gate reads its own.

    Attributes:
        gates: Number of readers, G.
        experts: M.
    """

    def __init__(self, size: int, gates: int, experts: int) -> None:
        super().__init__()
        self.size, self.gates, self.experts = size, gates, experts

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Return each expert's share, ``[S, G, M]``."""

    def auxiliary(self, asked: Tensor) -> Tensor:
        """Return what the last ``forward`` while training adds to the loss; ``asked`` is ``[S, G]`` bool."""
        return torch.zeros((), device=asked.device)


class Affine(nn.Module):
    """A map for each gate, ``[S, D] -> [S, G, M]`` or ``[S, G, D] -> [S, G, M]``."""

    def __init__(self, size: int, gates: int, width: int, *, scale: float = 1.0) -> None:
        """Draw weights uniformly from +-``scale`` / sqrt(D); biases are 0."""
        super().__init__()
        self.weight = nn.Parameter((2 * torch.rand(gates, size, width) - 1) * scale / size**0.5)
        self.bias = nn.Parameter(torch.zeros(gates, width))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map each gate's inputs."""
        columns = inputs.unsqueeze(0) if inputs.dim() == 2 else inputs.transpose(0, 1)
        return torch.matmul(columns, self.weight).transpose(0, 1) + self.bias


class SoftmaxInputGate(InputGate):
    """g(x) = softmax(W x + b): all experts, each with its share.

    Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts",
    equation 7; b is an addition.
    """

    def __init__(self, size: int, gates: int, experts: int) -> None:
        super().__init__(size, gates, experts)
        self.logits = Affine(size, gates, experts)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return each expert's share, ``[S, G, M]``."""
        return torch.softmax(self.logits(inputs), dim=-1)


class NoisyTopKGate(InputGate):
    """Noisy top-k gating (Shazeer et al. 2017, "Outrageously Large Neural Networks", section 2.1).

    H_i(x) = (x W_g)_i + N(0, 1) softplus((x W_noise)_i) (equation 4), the noise while training only; the k
    largest are kept, and G(x) = softmax(KeepTopK(H(x), k)) (equations 3 and 5). Both maps start at 0, so that
    all experts are used alike (appendix A). Two losses keep it so: ``importance`` CV(sum_x G(x))^2
    (equation 7), and ``load`` CV(sum_x P(x))^2 (equations 8 to 11), P_i(x) being how likely expert i is
    chosen when its noise alone is drawn again.
    """

    def __init__(
        self, size: int, gates: int, experts: int, k: int, *, importance: float, load: float
    ) -> None:
        super().__init__(size, gates, experts)
        self.k = min(k, experts)
        self.importance, self.load = importance, load
        self.logits = Affine(size, gates, experts, scale=0.0)
        self.noise = Affine(size, gates, experts, scale=0.0)
        self._last: tuple[Tensor, Tensor] | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Return each expert's share, ``[S, G, M]``; 0 for all but k."""
        clean = self.logits(inputs)
        if not self.training:
            return self._shares(clean)
        deviation = softplus(self.noise(inputs))
        noisy = clean + torch.randn_like(clean) * deviation
        shares = self._shares(noisy)
        self._last = shares, self._chances(clean, noisy, deviation)
        return shares

    def auxiliary(self, asked: Tensor) -> Tensor:
        """Return the losses of importance and load over what was asked, ``[S, G]`` bool."""
        if self._last is None:
            return super().auxiliary(asked)
        shares, chances = self._last
        self._last = None
        counted = asked.unsqueeze(-1)
        importance, load = ((counted * numbers).sum(dim=(0, 1)) for numbers in (shares, chances))
        return self.importance * _variation(importance) + self.load * _variation(load)

    def _shares(self, logits: Tensor) -> Tensor:
        top, chosen = logits.topk(self.k, dim=-1)
        return torch.zeros_like(logits).scatter(-1, chosen, torch.softmax(top, dim=-1))

    def _chances(self, clean: Tensor, noisy: Tensor, deviation: Tensor) -> Tensor:
        """Return P, ``[S, G, M]``: how likely new noise lifts an expert above the k-th of the others."""
        if self.k == self.experts:
            return torch.ones_like(clean)
        top = noisy.detach().topk(self.k + 1, dim=-1).values
        inside = noisy.detach() >= top[..., self.k - 1 : self.k]
        bar = torch.where(inside, top[..., self.k :], top[..., self.k - 1 : self.k])
        chances: Tensor = torch.special.ndtr((clean - bar) / deviation)
        return chances


class DSelectInputGate(InputGate):
    """DSelect-k for each input.

    Hazimeh et al. 2021, "DSelect-k: Differentiable Selection in the Mixture of Experts with Applications to
    Multi-Task Learning", section 3: q(x) = sum_j softmax(A x)_j r(z_j(x)), z_j(x) = W_j x, a mixture of k
    selectors r. ``entropy`` is the price of their indecision.
    """

    codes: Tensor

    def __init__(self, size: int, gates: int, experts: int, k: int, *, entropy: float) -> None:
        super().__init__(size, gates, experts)
        self.k, self.entropy = k, entropy
        self.register_buffer("codes", binary_codes(experts))
        self.mixture = Affine(size, gates, k)
        # Near 0 the smooth step is steep and no expert is preferred.
        self.selectors = Affine(size, gates, k * self.codes.shape[1], scale=0.1)
        with torch.no_grad():
            self.selectors.bias.uniform_(-0.01, 0.01)
        self._last: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Return each expert's share, ``[S, G, M]``."""
        digits = self.selectors(inputs)
        r = selectors(digits.reshape(*digits.shape[:2], self.k, self.codes.shape[1]), self.codes)
        if self.training:
            self._last = r
        return (torch.softmax(self.mixture(inputs), dim=-1).unsqueeze(-1) * r).sum(dim=-2)

    def auxiliary(self, asked: Tensor) -> Tensor:
        """Return the price of the selectors' mean entropy over what was asked, ``[S, G]`` bool."""
        if self._last is None:
            return super().auxiliary(asked)
        r, self._last = self._last, None
        mean: Tensor = (indecision(r) * asked).sum() / asked.sum().clamp(min=1)
        return mean * self.entropy


def _variation(numbers: Tensor) -> Tensor:
    """Return the squared coefficient of variation of ``[M]``."""
    if len(numbers) == 1:
        return torch.zeros((), device=numbers.device)
    return numbers.var() / (numbers.mean().square() + _SAME)
