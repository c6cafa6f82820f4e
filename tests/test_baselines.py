"""Baselines against independent simulators, hand-computed traces and both engines."""

from collections import OrderedDict

import numpy as np
import pytest

from banditroute import LFU, LRU, LinUCB, Polar, Problem, Router, Static, Stream, regret, simulate
from banditroute.residency import (
    FIFO,
    FTPL,
    GDSF,
    SIEVE,
    DecayedLFU,
    Popularity,
    RandomSet,
    ResidentOnly,
    ResidentSet,
    View,
)
from banditroute.simulation import churning, homes, sized

N, K = 8, 3
NOTHING = np.zeros(0)


def trace(seed, length=3000, skew=1.0):
    """Zipf requests whose popularity order changes twice."""
    rng = np.random.default_rng(seed)
    shares = np.arange(1.0, N + 1) ** -skew
    shares /= shares.sum()
    parts = [rng.permutation(N)[rng.choice(N, size=length // 3, p=shares)] for _ in range(3)]
    return np.concatenate(parts).tolist()


def drive(controller, requests, *, sizes=None, pinned=()):
    """Serve every request by its own arm; returns the resident set after each."""
    resident = ResidentSet(N, controller.capacity, sizes=sizes, pinned=pinned)
    controller.begin(resident)
    sets = []
    for arm in requests:
        hit = bool(resident.mask[arm])
        controller.observe(arm, NOTHING, hit)
        if not hit:
            victims = controller.make_room(arm, resident)
            if victims is not None:
                for victim in victims:
                    assert resident.evict(victim)
                assert resident.load(arm)
        assert resident.used <= controller.capacity * (1 + 1e-12)
        sets.append(frozenset(resident))
    return sets


# Independent simulators: plain dictionaries and lists, unit sizes, start from arms 0 .. K-1.


def slow_lru(requests):
    order = OrderedDict((a, None) for a in range(K))
    for arm in requests:
        if arm in order:
            order.move_to_end(arm)
        else:
            order.popitem(last=False)
            order[arm] = None
        yield frozenset(order)


def slow_fifo(requests):
    queue = list(range(K))
    for arm in requests:
        if arm not in queue:
            queue = [*queue[1:], arm]
        yield frozenset(queue)


def slow_lfu(requests, half_life=None):
    inside = set(range(K))
    for t, arm in enumerate(requests):
        past = requests[: t + 1]
        if half_life is None:
            uses = [past.count(a) for a in range(N)]
        else:
            uses = [sum(0.5 ** ((t - i) / half_life) for i, b in enumerate(past) if b == a) for a in range(N)]
        if arm not in inside:
            victim = min(inside, key=lambda a: (uses[a], a))
            if uses[arm] > uses[victim]:
                inside = inside - {victim} | {arm}
        yield frozenset(inside)


def slow_gdsf(requests, prices):
    score, uses, age = dict.fromkeys(range(K), 0.0), dict.fromkeys(range(K), 0), 0.0
    for arm in requests:
        if arm not in score:
            victim = min(sorted(score), key=score.__getitem__)
            age = score.pop(victim)
            uses[arm] = 0
        uses[arm] += 1
        score[arm] = age + uses[arm] * prices[arm]
        yield frozenset(score)


class _Node:
    def __init__(self, arm):
        self.arm, self.seen, self.newer, self.older = arm, False, None, None


def slow_sieve(requests):
    """The linked list of the paper: head is the newest, the hand moves from tail to head."""
    nodes, head, tail, hand = {}, None, None, None

    def insert(arm):
        nonlocal head, tail
        node = nodes[arm] = _Node(arm)
        node.older = head
        if head is not None:
            head.newer = node
        head = node
        if tail is None:
            tail = node

    for arm in range(K):
        insert(arm)
    for arm in requests:
        if arm in nodes:
            nodes[arm].seen = True
        else:
            node = hand or tail
            while node.seen:
                node.seen = False
                node = node.newer or tail
            hand = node.newer
            if node.newer:
                node.newer.older = node.older
            else:
                head = node.older
            if node.older:
                node.older.newer = node.newer
            else:
                tail = node.newer
            del nodes[node.arm]
            insert(arm)
        yield frozenset(nodes)


def slow_ftpl(requests, width, seed):
    blurred = width * np.random.default_rng(seed).standard_normal(N)
    for arm in requests:
        blurred[arm] += 1.0
        yield frozenset(np.argsort(-blurred)[:K].tolist())


PRICES = np.random.default_rng(5).uniform(0.1, 0.5, N)
TWINS = {
    "LRU": (lambda: LRU(K), slow_lru),
    "FIFO": (lambda: FIFO(K), slow_fifo),
    "LFU": (lambda: LFU(K), slow_lfu),
    "DecayedLFU": (lambda: DecayedLFU(K, 40.0), lambda r: slow_lfu(r, 40.0)),
    "GDSF": (lambda: GDSF(K, PRICES), lambda r: slow_gdsf(r, PRICES)),
    "SIEVE": (lambda: SIEVE(K), slow_sieve),
    "FTPL": (lambda: FTPL(K, 15.0, rng=3), lambda r: slow_ftpl(r, 15.0, 3)),
}


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("seed", range(3))
def test_follows_an_independent_simulator(name, seed):
    make, slow = TWINS[name]
    requests = trace(seed, 600)
    got, wanted = drive(make(), requests), list(slow(requests))
    first = next((t for t, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b), None)
    assert first is None, (first, got[first], wanted[first])
    assert len(set(got)) > 1  # something happened


def test_the_simulators_tell_the_controllers_apart():
    requests = trace(0, 600)
    runs = {name: tuple(slow(requests)) for name, (_, slow) in TWINS.items()}
    assert len(set(runs.values())) == len(runs)


def test_decayed_counts_survive_rescaling():
    # The weight passes 1e100 about every 3,320 requests at a half-life of 10: scaling must not change the order.
    requests = trace(2, 9000)
    inside, uses = set(range(K)), np.zeros(N)
    wanted = []
    for arm in requests:
        uses *= 0.5 ** (1 / 10)
        uses[arm] += 1.0
        if arm not in inside:
            victim = min(inside, key=lambda a: (uses[a], a))
            if uses[arm] > uses[victim]:
                inside = inside - {victim} | {arm}
        wanted.append(frozenset(inside))
    assert drive(DecayedLFU(K, 10.0), requests) == wanted


def test_hand_computed_traces():
    # Start {0, 1, 2}, then 0 hit, 3 fault, 0, 4 fault, 1 fault.
    requests = [0, 3, 0, 4, 1]
    assert [sorted(s) for s in drive(LRU(3), requests)] == [
        [0, 1, 2],
        [0, 2, 3],
        [0, 2, 3],
        [0, 3, 4],
        [0, 1, 4],
    ]
    assert [sorted(s) for s in drive(FIFO(3), requests)] == [
        [0, 1, 2],
        [1, 2, 3],
        [0, 2, 3],
        [0, 3, 4],
        [0, 1, 4],
    ]
    # SIEVE: 0 marked; the hand clears 0, evicts 1; 0 marked again; the hand is at 2 and evicts it; then 3 goes.
    assert [sorted(s) for s in drive(SIEVE(3), requests)] == [
        [0, 1, 2],
        [0, 2, 3],
        [0, 2, 3],
        [0, 3, 4],
        [0, 1, 4],
    ]
    # LFU: 3 used once beats 1 unused; 4 beats 2; 1 (once) does not beat 3 (once).
    assert [sorted(s) for s in drive(LFU(3), requests)] == [
        [0, 1, 2],
        [0, 2, 3],
        [0, 2, 3],
        [0, 3, 4],
        [0, 3, 4],
    ]


@pytest.mark.parametrize("name", TWINS)
def test_pins_stay_and_sizes_fit(name):
    sizes = np.array([1.0, 2.0, 3.0, 1.0, 2.0, 0.5, 4.0, 0.1])
    make = {
        "LRU": lambda: LRU(6.0, pinned=[7]),
        "FIFO": lambda: FIFO(6.0, pinned=[7]),
        "LFU": lambda: LFU(6.0, pinned=[7]),
        "DecayedLFU": lambda: DecayedLFU(6.0, 50.0, pinned=[7]),
        "GDSF": lambda: GDSF(6.0, PRICES, pinned=[7]),
        "SIEVE": lambda: SIEVE(6.0, pinned=[7]),
        "FTPL": lambda: FTPL(6.0, rng=1, pinned=[7]),
    }[name]
    sets = drive(make(), trace(4), sizes=sizes, pinned=[7])
    assert all(7 in s for s in sets)
    assert len(set(sets)) > 3
    if name not in (
        "LFU",
        "DecayedLFU",
        "FTPL",
    ):  # a large arm would have to be used more than all its victims
        assert any(6 in s for s in sets)


@pytest.mark.parametrize("name", TWINS)
def test_an_arm_that_never_fits_is_passed_through(name):
    sizes = np.ones(N)
    sizes[5] = 3.0
    pinned = [0]
    controller = TWINS[name][0]()
    controller.capacity = 3.0
    before = drive(controller, [1, 2, 1, 5, 5, 5, 5], sizes=sizes, pinned=pinned)
    assert all(5 not in s for s in before)
    assert before[2] == before[-1]


@pytest.mark.parametrize("name", TWINS)
def test_a_removed_arm_leaves_the_rest_in_order(name):
    # Running with arms 0 .. 6 after the last arm went is running on 7 arms from that state.
    requests = [a for a in trace(6, 300) if a != N - 1]
    whole, cut = TWINS[name][0](), TWINS[name][0]()
    one, two = ResidentSet(N, K), ResidentSet(N, K)

    def serve(controller, resident, arms):
        sets = []
        for arm in arms:
            hit = bool(resident.mask[arm])
            controller.observe(arm, NOTHING, hit)
            victims = None if hit else controller.make_room(arm, resident)
            if victims is not None:
                for victim in victims:
                    resident.evict(victim)
                resident.load(arm)
            sets.append(frozenset(resident))
        return sets

    whole.begin(one)
    cut.begin(two)
    if N - 1 in one:  # FTPL may start there
        for controller, resident in ((whole, one), (cut, two)):
            serve(controller, resident, [a for a in range(N - 1) for _ in range(100)])
    assert N - 1 not in one
    serve(whole, one, requests[:150])
    serve(cut, two, requests[:150])
    cut.resize(list(range(N - 1)))
    smaller = ResidentSet(N - 1, K)
    smaller.replace(set(two))
    assert serve(whole, one, requests[150:]) == serve(cut, smaller, requests[150:])


def test_renumbering_follows_the_arms():
    # Swapping the names of all arms must swap the residents and nothing else.
    keep = list(range(N))[::-1]
    requests = trace(7, 300)
    for name in ("LRU", "FIFO", "SIEVE", "GDSF"):
        plain = drive(TWINS[name][0](), requests)
        turned = TWINS[name][0]()
        resident = ResidentSet(N, K)
        turned.begin(resident)
        for arm in requests[:150]:
            hit = bool(resident.mask[arm])
            turned.observe(arm, NOTHING, hit)
            victims = None if hit else turned.make_room(arm, resident)
            for victim in victims or []:
                resident.evict(victim)
            resident.load(arm)
        turned.resize(keep)
        mirror = ResidentSet(N, K)
        mirror.replace(N - 1 - a for a in resident)
        for t, request in enumerate(requests[150:], start=150):
            arm = N - 1 - request
            hit = bool(mirror.mask[arm])
            turned.observe(arm, NOTHING, hit)
            victims = None if hit else turned.make_room(arm, mirror)
            for victim in victims or []:
                mirror.evict(victim)
            mirror.load(arm)
            assert {N - 1 - a for a in mirror} == plain[t], (name, t)


# Fixed sets.


def test_popularity_counts_a_prefix_and_pays_once():
    requests = [4, 4, 6, 6, 6, 1, 4, 0, 0, 0, 0, 0]
    controller = Popularity(2, prefix=7)
    resident = ResidentSet(N, 2)
    controller.begin(resident)
    controller.observe_many(np.array(requests[:7]), np.zeros((7, 1)), np.zeros(7, dtype=bool))
    view = View(7, lambda x: (x, x), np.ones(N), np.ones(N), resident, np.zeros(N))
    assert controller.plan(view) == {4, 6}
    assert controller.next_plan == float("inf")
    controller.observe(0, NOTHING, True)
    assert controller.plan(view) == {4, 6}


def test_popularity_of_given_shares_per_size():
    router = Router(LinUCB(3, 2), Popularity(3.0, [0.5, 0.3, 0.2]), 0.1, sizes=[3.0, 1.0, 1.0])
    assert router.resident == ("1", "2")
    router = Router(LinUCB(3, 2), Popularity(2, [0.5, 0.3, 0.2], pinned=["2"]), 0.1)
    assert router.resident == ("0", "2")


def test_random_sets_are_uniform():
    # 10 sets of 2 out of 5, 2,000 draws, seeds 0 .. 1999: chi-square at 9 degrees stays below 27.9 (alarm 0.1 %).
    seen = {}
    for seed in range(2000):
        resident = ResidentSet(5, 2)
        RandomSet(2, rng=seed).begin(resident)
        key = tuple(resident)
        seen[key] = seen.get(key, 0) + 1
        assert resident.page_ins == 0
    assert len(seen) == 10
    assert sum((v - 200) ** 2 / 200 for v in seen.values()) < 27.9


# Resident-only routing.


def test_resident_only_never_leaves_the_set_and_explores_by_loading():
    problem = homes(6000, 2)
    run = simulate(LinUCB(15, 10, rng=0), problem, ResidentOnly(Polar(4, epoch=200)))
    assert run.hits.all()
    tried = set(np.unique(run.arms).tolist())
    assert tried > {0, 1, 2, 3} and len(run.epochs) > 1
    assert run.loads


def test_resident_only_serves_when_no_resident_is_there():
    means = np.full((20, 3), 0.5)
    available = np.ones((20, 3), dtype=bool)
    available[5, 0] = False
    stream = Stream(np.ones((20, 1)), means, means, ("a", "b", "c"), available=available)
    problem = Problem(stream, [0.1, 0.3, 0.2], [0.1] * 3, capacity=1)
    for engine in ("compiled", "router"):
        run = simulate(LinUCB(3, 1, rng=0), problem, ResidentOnly(Static([0])), engine=engine)
        assert np.flatnonzero(~run.hits).tolist() == [5]
        assert run.arms[5] == 2  # the cheaper of the two


def test_resident_only_refuses_insertion():
    with pytest.raises(TypeError, match="inner must be a controller that plans"):
        ResidentOnly(LRU(2))


# Both engines.

CONTROLLERS = {
    "LRU": lambda p: LRU(p.capacity),
    "FIFO": lambda p: FIFO(p.capacity),
    "SIEVE": lambda p: SIEVE(p.capacity),
    "LFU": lambda p: LFU(p.capacity),
    "DecayedLFU": lambda p: DecayedLFU(p.capacity, 300),
    "GDSF": lambda p: GDSF(p.capacity, p.faults),
    "FTPL": lambda p: FTPL(p.capacity, rng=1),
    "RandomSet": lambda p: RandomSet(p.capacity, rng=1),
    "Popularity": lambda p: Popularity(p.capacity, prefix=500),
    "Static": lambda p: Static(()),
    "ResidentOnly": lambda p: ResidentOnly(Polar(p.capacity, epoch=200)),
}


@pytest.mark.parametrize("name", CONTROLLERS)
@pytest.mark.parametrize("family", [homes, churning, sized])
def test_engines_agree(name, family):
    problem = family(1500, 3)
    runs = [
        simulate(
            LinUCB(len(problem.stream.arms), problem.stream.dim, rng=4),
            problem,
            CONTROLLERS[name](problem),
            engine=e,
        )
        for e in ("compiled", "router")
    ]
    one, two = runs
    for field in ("arms", "hits", "propensities"):
        np.testing.assert_array_equal(getattr(one, field), getattr(two, field))
    assert (one.epochs, one.page_ins) == (two.epochs, two.page_ins)
    np.testing.assert_allclose(np.array(one.loads), np.array(two.loads), rtol=1e-9)
    parts = regret(one, problem)
    assert np.isfinite(parts.total).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DecayedLFU(2, 0.5), "half_life"),
        (lambda: GDSF(2, [-1.0, 1.0]), "prices"),
        (lambda: GDSF(2, float("nan")), "prices"),
        (lambda: FTPL(2, -1.0), "width"),
        (lambda: Popularity(2, [-0.5, 1.5]), "shares"),
        (lambda: Popularity(2, prefix=0), "prefix"),
        (lambda: LRU(-1), "capacity"),
        (lambda: ResidentOnly(Polar(2), surcharge=0.0), "surcharge"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_prices_and_shares_must_name_every_arm():
    for controller, name in ((GDSF(2, [0.1, 0.2]), "prices"), (Popularity(2, [0.1, 0.2]), "shares")):
        with pytest.raises(ValueError, match=rf"{name} must have shape \(3,\)"):
            Router(LinUCB(3, 2), controller, 0.1)
