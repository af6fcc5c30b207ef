"""Gates: how a task chooses among experts, and with which weights it mixes those it chose.

None of them looks at the input, so that after training each freezes to a row of the mixing matrix.
"""

from coterie.training.stages.gates._base import AtFreeze, Gate, most_likely
from coterie.training.stages.gates._bernoulli import BernoulliGate, MixtureInit
from coterie.training.stages.gates._dense import SoftmaxGate, UngatedMixture
from coterie.training.stages.gates._dselect import DSelectGate
from coterie.training.stages.gates._routing import RoutingGate
from coterie.training.stages.gates._topk import TopKGate

__all__ = [
    "AtFreeze",
    "BernoulliGate",
    "DSelectGate",
    "Gate",
    "MixtureInit",
    "RoutingGate",
    "SoftmaxGate",
    "TopKGate",
    "UngatedMixture",
    "most_likely",
]
