"""Several processes that train one model, each on its share of every batch.

Gradients are summed by hand, after the backward pass. ``DistributedDataParallel`` would hook into parameters
that are there from the start and used in every step: here a step uses only the blocks its tasks need, and a
freeze replaces N rows by K.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn

from coterie.runtime.errors import ConfigError, TrainingError

_LOST = (
    "another process of this training has ended: see its own message; the same command, given again, goes on "
    "from the newest checkpoint"
)


class Ranks:
    """The processes of one training, W of them.

    Attributes:
        rank: Which of them this is; 0 is the one that writes.
        world: W; 1 where nobody started more.
        device: Where this one computes.
    """

    def __init__(self, device: torch.device, rank: int = 0, world: int = 1) -> None:
        self.device = device
        self.rank = rank
        self.world = world

    @property
    def first(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return a tensor's sum over all processes, the same bits in each; it may be the tensor itself.

        Raises:
            TrainingError: If another process has ended.
        """
        if self.world == 1:
            return tensor
        total = tensor.to(self.device)
        try:
            distributed.all_reduce(total)
        except RuntimeError as error:
            raise TrainingError(_LOST) from error
        return total

    def largest(self, number: int) -> int:
        """Return the largest of all processes' numbers."""
        numbers = torch.zeros(self.world, device=self.device)
        numbers[self.rank] = number
        return int(self.sum(numbers).max())

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.sum(torch.zeros(1, device=self.device))

    def share(self, module: nn.Module) -> None:
        """Give all processes the first one's buffers: what a module keeps of the states that it saw."""
        if self.world == 1:
            return
        for name, buffer in list(module.named_buffers(recurse=False)):
            dims = torch.zeros(8, dtype=torch.float64)
            if self.first:
                dims[: buffer.dim() + 1] = torch.tensor([buffer.dim(), *buffer.shape])
            number, *shape = (int(each) for each in self.sum(dims).tolist())
            own = buffer if self.first else buffer.new_zeros(shape[:number])
            setattr(module, name, self.sum(own))

    def sum_gradients(self, parameters: Sequence[nn.Parameter], values: Tensor) -> Tensor:
        """Sum gradients over all processes, and some values ``[V]`` with them; return their sums.

        A parameter that no process used keeps no gradient, as in a training of one process.
        """
        if self.world == 1:
            return values
        used = [parameter.grad is not None for parameter in parameters]
        flat = [values, torch.tensor(used, dtype=torch.float32, device=self.device)]
        flat += [
            torch.zeros_like(each).flatten() if each.grad is None else each.grad.flatten()
            for each in parameters
        ]
        sizes = [len(part) for part in flat]
        sums, anywhere, *gradients = torch.split(self.sum(torch.cat(flat)), sizes)
        for parameter, count, gradient in zip(parameters, anywhere.tolist(), gradients, strict=True):
            parameter.grad = gradient.reshape(parameter.shape) if count else None
        return sums

    def check_same(self, tensors: Sequence[Tensor]) -> None:
        """Make sure that all processes hold the same bits.

        Raises:
            TrainingError: If they do not, or if another process has ended.
        """
        if self.world == 1:
            return
        digest = hashlib.sha256()
        for tensor in tensors:
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        own = torch.tensor(list(digest.digest()), dtype=torch.float32, device=self.device)
        mean = self.sum(own.clone()) / self.world
        unequal = self.sum(((own - mean).abs() > 1e-3).any().float().reshape(1))
        if float(unequal) > 0:
            raise TrainingError(
                "the processes' weights differ: use the same machines, libraries and trainer.threads for all "
                "of them, or train in one process"
            )


def is_first() -> bool:
    """Return whether this process is the one that speaks for a training."""
    return os.environ.get("RANK", "0") == "0"


def choose_device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu`` or ``cuda`` means for this process.

    Raises:
        ConfigError: If it is not there.
    """
    there = torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not there):
        return torch.device("cpu")
    local, number = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if not there:
        problem = "is cuda, but torch finds no such device: use auto or cpu, or install torch for CUDA"
    elif local >= number:
        problem = f"process {local} of this machine finds {number} devices: start at most that many"
    else:
        return torch.device("cuda", local)
    raise ConfigError("the training cannot start:", [f"trainer.device: {problem}"])


@contextmanager
def join(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started with this one, if it did, until the training is over."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in os.environ:
        yield Ranks(device)
        return
    own = not distributed.is_initialized()
    if own:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(device, distributed.get_rank(), distributed.get_world_size())
    finally:
        if own:
            distributed.destroy_process_group()
