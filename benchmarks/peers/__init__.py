"""One adapter per library, all of the same shape, so that one worker can drive any of them.

A module here defines ``class Peer(arms, dim, alpha, seed)`` with ``select(x) -> arm index`` and ``update(arm,
x, reward)``, where `x` is a contiguous float64 vector: an adapter pays for whatever conversion its library
needs, because a caller would. ``copy.deepcopy`` of a peer is an independent policy in the same state.
``SETTING`` says in words what was run, ``DISTRIBUTION`` names the package whose version is reported, and an
optional ``learn(arms, contexts, rewards)`` loads a history faster than one update at a time, to the same
state.
"""

OURS, YARDSTICK = "banditroute", "numpy_reference"
OTHERS = ("paretobandit", "vowpalwabbit", "mabwiser", "river")
LABELS = {
    OURS: "banditroute",
    YARDSTICK: "numpy reference",
    "paretobandit": "ParetoBandit",
    "vowpalwabbit": "Vowpal Wabbit",
    "mabwiser": "MABWiser",
    "river": "river",
}
