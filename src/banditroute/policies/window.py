"""Forgetting by a sliding window, widths that grow while an arm rests, and learning at few moments only."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Arrays, Floats, Header
from banditroute.policies.base import Policy, Settings
from banditroute.policies.evidence import ArmEvidence, EvidencePolicy, Sums, check_sums, copied, summed
from banditroute.policies.wrapper import GUEST, Wrapper, moved, whole

__all__ = ["BatchedUpdates", "SlidingWindow", "StalenessInflation"]

LOOSEST = 200.0  # largest inflation of a variance, as in ParetoBandit


class SlidingWindow(Wrapper):
    """Any policy, learning from its latest decisions only.

    Parameters
    ----------
    base : Policy
        A new policy; it belongs to the window from then on.
    window : int
        Decisions that count. In buckets of a tenth: at clock index t those of the last ten whole buckets and the
        current one do, so between 1 and 1.1 windows.

    Notes
    -----
    Source: Garivier and Moulines (ALT 2011) without context; Cheung, Simchi-Levi and Zhu (AISTATS 2019) for linear arms
    (equation numbers not checked against the text). At the end of a bucket the policy is learned afresh from what the
    window holds, with nothing subtracted, so rounding does not pile up: about ten updates per decision in all, O(window
    dim) memory, and nothing at all before the window is full. The bounds need a window matched to the speed of change,
    which nobody knows; estimated scales and the pooled prior of `LinUCB` are not covered. An arm that left the window
    is cold, and explored again. Candidates of requests are passed on to a base that takes them.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy = SlidingWindow(LinUCB(2, 1, rng=0), window=100)
    >>> for t in range(300):
    ...     policy.update(0, [1.0], float(t < 150))
    >>> bool(policy.scores([1.0]).mean[0] < 0.01)
    True
    """

    refuses_candidates = ""
    _kept = ("lessons", "bucket")
    _settings = ("window",)

    def __init__(self, base: Policy, window: int = 2000) -> None:
        super().__init__(base)
        self.window = check.integer("window", window, low=1)
        self.span = max(1, self.window // 10)
        self._cold = base.copy()
        self._size = self._width + 4  # arm, reward, weight, clock index, context
        self._store = np.zeros((64, self._size))
        self._held = 0
        self._told: dict[str, dict[int, Sums]] = {}  # by arm: sums that were set, before the lessons
        self._bucket = 0

    @property
    def lessons(self) -> Floats:
        """Feedback that counts, in order of arrival: rows of arm, reward, weight, clock index and context."""
        return self._store[: self._held]

    @lessons.setter
    def lessons(self, rows: Floats) -> None:
        self._store, self._held = np.array(rows).reshape(-1, self._size), len(rows)

    @property
    def bucket(self) -> int:
        """The current bucket: a tenth of the window."""
        return self._bucket

    @bucket.setter
    def bucket(self, bucket: Floats) -> None:
        self._bucket = int(bucket)

    def _first(self, bucket: int) -> int:
        """Return the oldest bucket that counts in this one."""
        return bucket - -(-self.window // self.span)

    def _learn(self, a: int, x: Floats, reward: float, weight: float, at: int) -> None:
        self._move(at)
        if at // self.span < self._first(self._bucket):
            return
        if self._held == len(self._store):
            self._store = np.concatenate([self._store, np.zeros((max(64, self._held), self._size))])
        self._store[self._held, :4] = a, reward, weight, at
        self._store[self._held, 4:] = x
        self._held += 1
        self._teach(self.base, self._store[self._held - 1])

    def _teach(self, base: Policy, lesson: Floats) -> None:
        arm: int | str = int(lesson[0])
        if arm == GUEST:
            arm = "guest"
            while arm in self.positions:
                arm += "'"
        base.update(arm, lesson[4:], float(lesson[1]), weight=float(lesson[2]), at=int(lesson[3]))

    def _move(self, at: int) -> None:
        """Enter the bucket of clock index `at`; learn afresh if that leaves something behind."""
        if at // self.span <= self._bucket:
            return
        self._bucket = at // self.span
        oldest = self._first(self._bucket)
        stays = self.lessons[:, 3] >= oldest * self.span
        told = {arm: {b: s for b, s in given.items() if b >= oldest} for arm, given in self._told.items()}
        if not stays.all() or told != self._told:
            self._store = self.lessons[stays]
            self._held = len(self._store)
            self._told = {arm: given for arm, given in told.items() if given}
            self._relearn()

    def _relearn(self) -> None:
        fresh = self._cold.copy()
        fresh.resize([None] * len(self.arms))
        fresh.rename(self.arms)
        for arm, given in self._told.items():
            self._set(fresh, arm, given)
        for row in self.lessons:
            self._teach(fresh, row)
        fresh.continue_from(self.base)
        self.base = fresh
        self._rng = fresh.generator

    def _set(self, base: Policy, arm: str, given: dict[int, Sums]) -> None:
        """Have a base know of an arm what these buckets hold, added in their order."""
        assert isinstance(base, EvidencePolicy)
        parts = [ArmEvidence(0, -1, {0: sums}) for _, sums in sorted(given.items())]
        base.set_evidence(arm, summed(base, parts or [self._nothing(arm)]))

    def _nothing(self, arm: str) -> ArmEvidence:
        """Return evidence of nothing on an arm, or on what is shared."""
        base = self._evident()
        if arm not in self.shared_names:
            return base.empty_evidence()
        (sums,) = base.evidence(arm).buckets.values()
        return ArmEvidence(0, -1, {0: {name: np.zeros_like(array) for name, array in sums.items()}})

    def _place(self, arm: str) -> int:
        return GUEST if arm in self.shared_names else self.index(arm)

    # Evidence: sums by bucket of the window, whatever the base would make of them.

    def fingerprint(self) -> dict[str, Any]:
        """Return that of the base, with the window."""
        if self.base.span:
            raise TypeError(f"{type(self.base).__name__} cannot share here: it forgets by a clock of its own")
        return {**super().fingerprint(), "window": self.window}

    def evidence(self, arm: str) -> ArmEvidence:
        """Return a copy of the sums of one arm, by bucket: O(dim^2) for each of its lessons."""
        own = self.lessons[self.lessons[:, 0] == self._place(arm)]
        total = copied(ArmEvidence(self.generation(arm), -1, dict(self._told.get(arm, {}))))
        for row in own:
            bucket = int(row[3]) // self.span
            if bucket not in total.buckets:
                total.buckets[bucket] = self._nothing(arm).buckets[0]
            total = self.credit(total, row[4:], float(row[1]), float(row[2]), int(row[3]))
        return total if total.buckets else self._nothing(arm)._replace(generation=total.generation)

    def set_evidence(self, arm: str, total: ArmEvidence) -> None:
        """Put sums in the place of the lessons of one arm; learned afresh where buckets leave the window."""
        a, like = self._place(arm), self._nothing(arm).buckets[0]
        for sums in total.buckets.values():
            check_sums(sums, like)
        newest = max(total.buckets, default=0)
        if newest > self._bucket:
            self._move(newest * self.span)
        self.lessons = self.lessons[self.lessons[:, 0] != a]
        kept = copied(self.aged(total, self._bucket)).buckets
        self._told[arm] = kept
        self._set(self.base, arm, kept)
        self.set_generation(arm, total.generation)

    def credit(
        self, evidence: ArmEvidence, x: Floats, reward: float, weight: float = 1.0, at: int = 0
    ) -> ArmEvidence:
        """Return evidence with one more reward in its bucket; works in place."""
        base, bucket = self._evident(), at // self.span
        if bucket < self._first(max(evidence.buckets, default=bucket)):
            return evidence
        sums = evidence.buckets.get(bucket)
        if sums is None:  # of the same kind as the others: of an arm, or of what is shared
            like = next(iter(evidence.buckets.values()), base.empty_evidence().buckets[0])
            sums = {name: np.zeros_like(array) for name, array in like.items()}
        part = ArmEvidence(0, -1, {0: sums})
        evidence.buckets[bucket] = base.credit(part, x, reward, weight).buckets[0]
        return self.aged(evidence, bucket)

    def aged(self, evidence: ArmEvidence, bucket: int) -> ArmEvidence:
        """Return the buckets that count in this one or a later one."""
        oldest = self._first(max(bucket, max(evidence.buckets, default=bucket)))
        return evidence._replace(buckets={b: s for b, s in evidence.buckets.items() if b >= oldest})

    # Clock, states, arms.

    def advance(self, at: int) -> None:
        """Forget what clock index `at` leaves behind."""
        self._move(at)
        super().advance(at)

    def rewind(self) -> None:
        """Start a new clock at index 0: what was learned so far counts as learned just now."""
        self.lessons[:, 3] = 0.0
        for arm, given in self._told.items():
            self._told[arm] = summed(
                self._evident(), [ArmEvidence(0, -1, {0: sums}) for _, sums in sorted(given.items())]
            ).buckets
        super().rewind()
        self._bucket = 0

    def _own_state(self) -> tuple[Header, Arrays]:
        """Return what is added to the state of the base; sums that were set are under ``told.``."""
        header, arrays = super()._own_state()
        told = [(arm, bucket) for arm, given in self._told.items() for bucket in given]
        for i, (arm, bucket) in enumerate(told):
            arrays |= {f"told.{i}.{name}": array.copy() for name, array in self._told[arm][bucket].items()}
        return {**header, "told": [list(key) for key in told]}, arrays

    def load_state(
        self, header: Mapping[str, Any], arrays: Mapping[str, Floats], *, settings: Settings = "strict"
    ) -> None:
        """Continue from `to_state`; with "own" the window of this policy says what counts."""
        told: dict[str, dict[int, Sums]] = {}
        given = header.get("told", [])
        if given:
            names = {*self.check_arms(check.entry("header", header, "arms")), *self.shared_names}
        for i, (arm, bucket) in enumerate(given):
            like = self._nothing(arm).buckets[0]
            sums = {
                n: np.array(check.entry("arrays", arrays, f"told.{i}.{n}"), dtype=np.float64) for n in like
            }
            check_sums(sums, like)
            if arm not in names:
                raise ValueError(f"told must be of arms of the state, got {check.shown(arm)}")
            told.setdefault(arm, {})[check.integer("told", bucket)] = sums
        theirs = header.get("settings", {}).get("window", self.window)
        super().load_state(header, arrays, settings=settings)
        self._told = told
        if (
            theirs != self.window
        ):  # buckets are of another size: sums of whole ones count from their first decision on
            span = max(1, check.integer("window", theirs, low=1) // 10)
            for arm, buckets in told.items():
                self._told[arm] = {}
                for bucket, sums in sorted(buckets.items()):
                    mine = self._told[arm].setdefault(bucket * span // self.span, {})
                    for name, array in sums.items():
                        mine[name] = mine[name] + array if name in mine else array
            at, self._bucket = max(self._bucket * span, self.clock - 1), 0
            self._move(at)
            self._relearn()

    def _shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        return {"lessons": (-1, self._size), "bucket": ()}

    def _sound(self, own: Mapping[str, Floats], count: int) -> None:
        rows = own["lessons"]
        whole("lessons", rows[:, 0] + self.learns_of("guest"), count + self.learns_of("guest"))
        whole("lessons", rows[:, 3], 2.0**53)
        whole("bucket", own["bucket"], 2.0**53)
        if not (rows[:, 2] > 0.0).all():
            raise ValueError("lessons must hold weights > 0")

    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``, or start cold where that is None."""
        self._store = moved(self.lessons, keep)
        self._held = len(self._store)
        gone = set(self.arms) - {self.arms[a] for a in keep if a is not None}
        self._told = {arm: given for arm, given in self._told.items() if arm not in gone}
        super().resize(keep)


class StalenessInflation(Wrapper):
    """A policy whose widths grow while an arm rests: ``width_a / sqrt(max(discount^rest, 1 / 200))``.

    Parameters
    ----------
    base : Policy
        A new `LinUCB`, `LinTS`, `EpsilonGreedy` or what else can be widened; forgetting itself or not.
    discount : float
        In (0, 1]: with 0.997 the variance of an arm doubles in 231 decisions; 1 changes nothing.

    Notes
    -----
    Source: ParetoBandit (arXiv 2604.00136; equation numbers not checked against the text), whose authors state that no
    sqrt(T) guarantee survives the inflation: one known to be bad is tried again and again, at a rate that the bounded
    factor keeps low. A rest counts from the newest decision whose reward is known to the newest one of all, so pending
    feedback does not hide an arm. The means do not change; `scores` reports widths without the inflation, `utilities`
    with it. Shared evidence tells when an arm last had feedback anywhere.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy = StalenessInflation(LinUCB(2, 1, alpha=1.0, ridge=1.0, rng=0), discount=0.9)
    >>> for arm in [0] * 20 + [1] * 30:
    ...     policy.update(arm, [1.0], 0.5)
    >>> policy.inflation.round(1)
    array([4.9, 1. ])
    """

    refuses_candidates = "arms rest, and candidates come and go"
    _kept = ("last",)
    _settings = ("discount",)

    def __init__(self, base: Policy, discount: float = 0.997) -> None:
        super().__init__(base)
        if not base.can_widen:
            raise TypeError(
                f"base must have widths that can be widened, as linear policies do, got {type(base).__name__}"
            )
        self.discount = check.finite("discount", discount, low=0.0, high=1.0, open_low=True)
        self.span = base.span or max(1, round(0.1 / (1.0 - self.discount)) if self.discount < 1.0 else 0)
        self.last = np.full(len(self.arms), -1.0)

    @property
    def inflation(self) -> Floats:
        """Factor of the width of each arm, shape (k,)."""
        rest = np.maximum(self.clock - 1 - self.last, 0.0)
        return np.asarray(1.0 / np.sqrt(np.maximum(self.discount**rest, 1.0 / LOOSEST)))

    def _spread(self) -> None:
        for a, factor in enumerate(self.inflation.tolist()):
            self.base.widen(a, "stale", factor)

    def update(
        self, arm: int | str, x: ArrayLike, reward: float, *, weight: float = 1.0, at: int | None = None
    ) -> None:
        """Learn one reward."""
        when = self.clock if at is None else at
        super().update(arm, x, reward, weight=weight, at=at)
        a = self.index(arm)
        self.last[a] = max(self.last[a], when)
        self._spread()

    def advance(self, at: int) -> None:
        """Let the arms rest until clock index `at`."""
        super().advance(at)
        self._spread()

    def rewind(self) -> None:
        """Start a new clock at index 0."""
        self.last -= self.clock
        super().rewind()

    def evidence(self, arm: str) -> ArmEvidence:
        """Return a copy of the sums of one arm, and when it last had feedback."""
        return super().evidence(arm)._replace(latest=int(self.last[self.index(arm)]))

    def set_evidence(self, arm: str, total: ArmEvidence) -> None:
        """Put sums in the place of those of one arm, and the time of its last feedback."""
        super().set_evidence(arm, total)
        self.last[self.index(arm)] = total.latest
        self.clock = max(self.clock, total.latest + 1)
        self._spread()

    def credit(
        self, evidence: ArmEvidence, x: Floats, reward: float, weight: float = 1.0, at: int = 0
    ) -> ArmEvidence:
        """Return evidence with one more reward in it; works in place."""
        total = super().credit(evidence, x, reward, weight, at)
        return total._replace(latest=max(total.latest, at))

    def load_state(
        self, header: Mapping[str, Any], arrays: Mapping[str, Floats], *, settings: Settings = "strict"
    ) -> None:
        """Continue from `to_state`."""
        super().load_state(header, arrays, settings=settings)
        self._spread()

    def rename(self, arms: tuple[str, ...]) -> None:
        """Take up the names of the arms, after `resize`."""
        super().rename(arms)
        if hasattr(self, "last"):
            self._spread()

    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``, or start cold where that is None."""
        self.last = self._rows_kept(self.last, keep, float(self.clock - 1))
        super().resize(keep)


class BatchedUpdates(Wrapper):
    """A linear policy that learns in batches: feedback waits until it could double the determinant of an arm.

    Parameters
    ----------
    base : Policy
        A policy whose width is ``sqrt(x' A^-1 x)``.
    growth : float
        Learn everything that waits once ``sum log(1 + weight x' A_a^-1 x)`` over what waits exceeds ``log(1 + growth)``
        for some arm.

    Notes
    -----
    Source: Abbasi-Yadkori, Pal and Szepesvari, "Improved algorithms for linear stochastic bandits" (NIPS 2011),
    the rule of its section "Saving computation": refresh when det A exceeds 1 + growth times that of the last refresh.
    Widths come from the A in use, so the sum bounds the growth of log det A: learning
    happens no later than the paper's rule would, O(d log T) times in all, at a regret that grows by sqrt(1 + growth).
    That holds for fixed ridge and width. `advance` and `flush` learn at once, off the request path.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy = BatchedUpdates(LinUCB(2, 1, ridge=1.0, rng=0))
    >>> for _ in range(1000):
    ...     policy.update(0, [1.0], 1.0)
    >>> policy.switches < 20
    True
    """

    refuses_candidates = "it counts by arm what waits"
    _kept = ("waiting", "gain")
    _settings = ("growth",)
    _passed = ()

    def __init__(self, base: Policy, growth: float = 1.0) -> None:
        super().__init__(base)
        self.growth = check.finite("growth", growth, low=0.0, high=1e30)
        self.waiting = np.zeros((0, self._width + 4))
        self.gain = np.zeros(len(self.arms))
        self.switches = 0

    def _learn(self, a: int, x: Floats, reward: float, weight: float, at: int) -> None:
        self.waiting = np.vstack([self.waiting, [[a, reward, weight, at, *x]]])
        self.gain[a] += np.log1p(weight * self.base.scores(x[: self.dim]).width[a] ** 2)
        if self.gain[a] > np.log1p(self.growth):
            self.flush()

    def flush(self) -> None:
        """Learn everything that waits."""
        for row in self.waiting:
            self.base.update(int(row[0]), row[4:], float(row[1]), weight=float(row[2]), at=int(row[3]))
        self.switches += len(self.waiting) > 0
        self.waiting = self.waiting[:0]
        self.gain = np.zeros(len(self.arms))

    def evidence(self, arm: str) -> ArmEvidence:
        """Return a copy of the sums of one arm, what waits included."""
        total = super().evidence(arm)
        for row in self.waiting[self.waiting[:, 0] == self.index(arm)]:
            total = self.credit(total, row[4:], float(row[1]), float(row[2]), int(row[3]))
        return total

    def set_evidence(self, arm: str, total: ArmEvidence) -> None:
        """Put sums in the place of those of one arm, and of its feedback that waits: they hold it."""
        super().set_evidence(arm, total)
        a = self.index(arm)
        self.waiting, self.gain[a] = self.waiting[self.waiting[:, 0] != a], 0.0

    def _shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        return super()._shapes(count) | {"waiting": (-1, self._width + 4)}

    def _sound(self, own: Mapping[str, Floats], count: int) -> None:
        whole("waiting", own["waiting"][:, 0], count)
        whole("waiting", own["waiting"][:, 3], 2.0**53)
        if not (own["waiting"][:, 2] > 0.0).all():
            raise ValueError("waiting must hold weights > 0")

    def advance(self, at: int) -> None:
        """Learn everything that waits, and tell the base the clock index."""
        self.flush()
        super().advance(at)

    def rewind(self) -> None:
        """Start a new clock at index 0."""
        self.flush()
        super().rewind()

    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``, or start cold where that is None."""
        self.waiting = moved(self.waiting, keep)
        self.gain = self._rows_kept(self.gain, keep)
        super().resize(keep)
