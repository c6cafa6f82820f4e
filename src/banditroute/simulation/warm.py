"""Compile everything before the first request."""

import numpy as np

from banditroute.policies import LinUCB
from banditroute.policies.graph.online_matching import compile_kernels
from banditroute.policies.linear import compile_rest
from banditroute.residency import Polar, best_set
from banditroute.router import Router
from banditroute.simulation.engine import simulate
from banditroute.simulation.stream import Problem, Stream

__all__ = ["warmup"]


def warmup() -> None:
    """Compile every kernel, or load it from the disk cache: call it before a server forks or takes requests.

    Notes
    -----
    About half a minute of compilation the first time on a machine, well under a second after that: numba keeps the
    machine code beside the package, or in the user's cache directory where that is not writable. Afterwards the
    request path compiles nothing: an argument of another type is converted or refused. A policy compiles its own
    request path when it is made, so that forgetting this call only moves the wait.

    Examples
    --------
    >>> warmup()
    """
    contexts = np.eye(2)[np.zeros(4, dtype=np.int64)]
    stream = Stream(contexts, np.zeros((4, 3)), np.zeros((4, 3)), ("a", "b", "c"))
    problem = Problem(stream, np.ones(3), np.ones(3), 1)
    simulate(LinUCB(3, 2, rng=0), problem, Polar(1, epoch=2), engine="compiled")
    for method in ("swap", "exact"):
        best_set(np.eye(3), np.ones(3), 1, method=method)
    compile_kernels()
    compile_rest()
    # Once along the path of a request, so that the first real one finds its code in memory and specialised.
    router = Router(LinUCB(3, 2, rng=0), Polar(1), 0.1)
    for x in contexts:
        router.update(router.select(x, prices=np.zeros(3)).id, 0.0)
        router.update(router.select(x).id, 0.0)
