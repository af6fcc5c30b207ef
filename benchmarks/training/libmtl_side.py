"""One training with LibMTL, run by ``benchmarks.training.libmtl`` with the interpreter that has it.

Takes its settings as JSON; prints a line of JSON. Knows nothing of coterie.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import types
from typing import Any

import numpy as np
import torch
from torch import nn

# LibMTL imports a function of torchvision that no torchvision has any more, for a network not used here.
for name in ("torchvision", "torchvision.models", "torchvision.models.utils"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["torchvision.models.utils"].load_state_dict_from_url = None  # type: ignore[attr-defined]

from LibMTL import architecture, weighting  # type: ignore[import-not-found] # noqa: E402


def main(settings: dict[str, Any]) -> dict[str, float]:
    """Train, keep the epoch that is best on dev, and score it on test."""
    torch.set_num_threads(1)
    torch.manual_seed(settings["seed"])
    with np.load(settings["arrays"]) as arrays:
        data = {key: torch.from_numpy(array) for key, array in arrays.items()}
    tasks = [str(number) for number in range(len(data["widths"]))]
    model = build(settings, tasks, data["widths"].tolist(), data["train_inputs"].shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=settings["lr"])
    inputs, answers = data["train_inputs"].float(), data["train_answers"]
    best, test, seconds = -1.0, 0.0, []
    for _ in range(settings["epochs"]):
        began = time.perf_counter()
        model.train()
        for batch in torch.randperm(len(inputs)).split(settings["batch"]):
            optimizer.zero_grad()
            scores = model(inputs[batch])
            losses = [
                nn.functional.cross_entropy(scores[task], answers[batch, number])
                for number, task in enumerate(tasks)
            ]
            model.backward(torch.stack(losses))
            optimizer.step()
        dev = _accuracy(model, tasks, data["dev_inputs"], data["dev_answers"])
        seconds.append(time.perf_counter() - began)
        if dev > best:
            best, test = dev, _accuracy(model, tasks, data["test_inputs"], data["test_answers"])
    return {
        "test": 100 * test,
        "epoch_seconds": statistics.median(seconds),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def build(
    settings: dict[str, Any], tasks: list[str], widths: list[int], size: int, *, own_inputs: bool = False
) -> Any:
    """Make a model with heads of these widths on inputs of this size.

    Args:
        settings: What ``main`` takes.
        tasks: Names.
        widths: Each task's number of classes.
        size: Of an input.
        own_inputs: Whether each task has inputs of its own (LibMTL's ``multi_input``).
    """
    width, hidden = settings["width"], settings["hidden"]

    class Encoder(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.ReLU())

    class Stack(nn.Module):
        """Fully connected layers under the names of a ResNet's, which LibMTL's cross-stitch asks for."""

        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Linear(size, width), nn.Identity()
            self.relu, self.maxpool = nn.ReLU(), nn.Identity()
            for layer in range(1, settings["layers"] + 1):
                self.add_module(f"layer{layer}", nn.Sequential(nn.Linear(width, width), nn.ReLU()))

    kind = getattr(architecture, settings["architecture"])

    class Model(kind, weighting.EW):  # type: ignore[misc]
        """As LibMTL's own trainer makes it."""

        def __init__(self) -> None:
            decoders = nn.ModuleDict(
                {task: nn.Linear(width, outputs) for task, outputs in zip(tasks, widths, strict=True)}
            )
            options = {
                "img_size": [size],
                "num_experts": [settings["experts"]],
                "num_nonzeros": 2,
                "kgamma": 1.0,
            }
            stack = Stack if settings["architecture"] == "Cross_stitch" else Encoder
            device = torch.device("cpu")
            kind.__init__(self, tasks, stack, decoders, False, own_inputs, device, **options)
            self.init_param()

    return Model()


@torch.no_grad()
def _accuracy(model: Any, tasks: list[str], inputs: torch.Tensor, answers: torch.Tensor) -> float:
    """Return the mean accuracy over tasks."""
    model.eval()
    scores = model(inputs.float())
    right = [scores[task].argmax(1) == answers[:, number] for number, task in enumerate(tasks)]
    return float(torch.stack(right).float().mean())


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
