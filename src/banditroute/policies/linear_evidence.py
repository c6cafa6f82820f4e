"""What others may take from a linear policy and put into it: evidence, utilities, widths, statistics of another."""

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator
from math import inf
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core.kernels import derived, layout, prepare, refresh
from banditroute._core.kernels.tally import credit
from banditroute._core.typing import Arrays, Floats, Header
from banditroute.policies.base import Compiled, Policy, Utilities
from banditroute.policies.evidence import ArmEvidence, Sums, copied, flat
from banditroute.policies.linear_draft import SUMS, ArmDraft
from banditroute.policies.linear_slices import StateCopy, changing
from banditroute.policies.linear_state import LinearState

__all__ = ["EvidenceDraft", "LinearSums"]

HELD = 32_768  # numbers copied while the lock is held: some 20 microseconds
AGES = np.array([0.0, 1.0, 1.0])  # a count does not age


class EvidenceDraft:
    """Evidence on an arm of a linear policy on its way in; see `DraftingPolicy`."""

    def __init__(self, policy: "LinearSums", arm: str, generation: int, draft: ArmDraft) -> None:
        self._policy, self._arm, self._generation, self._draft = policy, arm, generation, draft

    def derive(self) -> None:
        """Derive what follows from the evidence, without the lock."""
        self._draft.derive()

    def apply(self) -> bool:
        """Put it in place, with the lock held; False where too much has changed."""
        return self._policy.take_draft(self._arm, self._generation, self._draft)


class LinearSums(Policy):
    """A policy on a `LinearState`, as what its statistics are: sums per arm. `LinearPolicy` chooses and learns.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> LinUCB(2, 1, ridge=1.0, rng=0).mass(0)
    1.0
    """

    state: LinearState
    buffer: Floats
    factors: dict[str, list[float]]  # of the bonus, by source, one for each arm: what `widen` was given
    _diagonal: bool

    # What it knows.

    @property
    def intercept(self) -> bool:
        """Whether it adds a constant 1 to every context, as the last of its components."""
        return self.state.constant

    def with_constant(self, contexts: Floats) -> Floats:
        """Return contexts, (dim,) or (n, dim), as the arms see them: a constant 1 follows where the policy adds one."""
        if not self.state.constant:
            return contexts
        return np.concatenate([contexts, np.ones((*contexts.shape[:-1], 1))], axis=-1)

    @property
    def alpha(self) -> float:
        """Exploration width in use, reward units per unit of std."""
        return float(self.buffer[layout.H_ALPHA])

    @property
    def ridge(self) -> float:
        """Prior precision in use: of every coefficient, or of the slopes where it is estimated."""
        return float(self.buffer[layout.H_RIDGE])

    @property
    def level_ridge(self) -> float:
        """Prior precision in use of the components of the context that never change: that of the levels of the arms."""
        return float(self.buffer[layout.H_LEVEL_RIDGE])

    @property
    def ridges(self) -> Floats:
        """Prior precision of every coefficient of every arm, a (k, dim) copy."""
        return self.state.ridges[:, : self.state.dim].copy()

    @property
    def sigma(self) -> float:
        """Noise scale estimated at the last refresh (with an automatic alpha or ridge; else 0)."""
        return float(np.sqrt(self.buffer[layout.H_SIGMA2]))

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rewards learned per arm, shape (k,)."""
        return self.state.arm[:, layout.A_COUNT].astype(np.int64)

    @property
    def theta(self) -> Floats:
        """Coefficients, a (k, dim) copy; one column more, the last, with an intercept, here as below."""
        return self.state.theta[:, : self.state.dim].copy()

    @property
    def moment(self) -> Floats:
        """Weighted sums of reward times context, a (k, dim) copy."""
        return self.state.moment[:, : self.state.dim].copy()

    @property
    def prior(self) -> Floats:
        """Means towards which the arms are shrunk, a (k, dim) copy."""
        return self.state.prior[:, : self.state.dim].copy()

    def cov(self, arm: int | str) -> Floats:
        """Return ``A^-1`` of one arm, a (dim, dim) copy."""
        return self.state.cov_matrix(self.index(arm))

    def precision(self, arm: int | str) -> Floats:
        """Return ``A = diag(ridges) + sum of weighted x x'`` of one arm, a (dim, dim) copy."""
        a = self.index(arm)
        return self.state.full(self.state.whole(a)) + np.diag(self.state.ridges[a, : self.state.dim])

    # Widths that others change.

    @property
    def can_widen(self) -> bool:
        """True: the bonus of an arm is its width times alpha times the product of all factors."""
        return True

    def widen(self, arm: int, source: str, factor: float) -> None:
        """Multiply the bonus of an arm by ``factor`` > 0; factors of different sources multiply, of one replace."""
        factors = self.factors.get(source)
        if factors is None:
            factors = self.factors[source] = [1.0] * len(self.arms)
        factors[arm] = factor
        for other, mine in self.factors.items():
            if other != source:
                factor *= mine[arm]
        self.state.arm[arm, layout.A_SPREAD] = factor

    def mass(self, arm: int) -> float:
        """Return ridge and weight of the feedback of an arm, in observations of contexts of length one.

        Where levels and slopes have ridges of their own, it is that of a context of which both are an equal part.
        """
        slope, level = self.buffer[layout.H_RIDGE], self.buffer[layout.H_LEVEL_RIDGE]
        return float(2.0 / (1.0 / slope + 1.0 / level) + self.state.arm[arm, layout.A_WEIGHT])

    # What it maximises, also from a copy.

    def utilities(self, contexts: ArrayLike) -> Utilities:
        """Return mean and `bonus` (widened ones included) for each row: two (n, k) arrays."""
        rows = np.asarray(contexts, dtype=np.float64)
        mean, width = self.scores_batch(rows)
        seen = self.explored(rows)
        if seen is not rows:
            width = self.scores_batch(seen).width
        return Utilities(mean, self.bonus(seen, width) + self.lift(mean))

    def explored(self, contexts: Floats) -> Floats:
        """Return contexts whose widths make the bonus, (dim,) or (n, dim): slopes that matter little count less.

        With estimated scales, beside a constant, all other components are multiplied by what the slopes of an arm move
        its rewards in noise scales, where that is less than 1; contexts are returned as they are where it is not.
        """
        s = self.buffer
        if s[layout.H_CALM] == 0.0:
            return contexts
        start = int(s[layout.H_LEVEL])
        level = s[start : start + self.dim] != 0.0
        return np.where(level, contexts, (1.0 - s[layout.H_CALM]) * contexts)

    def lift(self, means: Floats) -> Floats:
        """Return what is added to the mean of an arm that has answered too seldom, in reward units; 0 for the others.

        With an automatic alpha each arm is to have answered once by the time there are eight requests per arm, and once
        more each time that number has doubled; one that has not is taken to be worth half a range more than the best
        reward seen. The range is that of the rewards and zero.

        Parameters
        ----------
        means : (k,) or (n, k) array
            Of `scores` or `scores_batch`.
        """
        s = self.buffer
        start = int(s[layout.H_ARM]) + layout.A_WEIGHT * int(s[layout.H_ROOM])
        few = s[start : start + means.shape[-1]] < s[layout.H_FEW]
        return np.where(few, np.maximum(s[layout.H_TOP] - means, 0.0), 0.0)

    def bonus(self, contexts: Floats, widths: Floats) -> Floats:
        """Return what exploration adds to the mean of each arm, in reward units; for sampling, one standard deviation.

        ``alpha w`` and, where alpha is automatic, the share ``w^2 / w_0^2`` of a first bonus, w_0 being the width of
        an arm of which nothing is known: what was never tried keeps a bonus though the noise be none.

        Parameters
        ----------
        contexts : (dim,) or (n, dim) array
            Of `explored`.
        widths : (k,) or (n, k) array
            Of `scores` or `scores_batch` of these.
        """
        s = self.buffer
        start = int(s[layout.H_ARM]) + layout.A_SPREAD * int(s[layout.H_ROOM])
        wide = s[start : start + widths.shape[-1]] * widths
        if s[layout.H_COLD] == 0.0:
            return np.asarray(s[layout.H_ALPHA] * wide)
        start = int(s[layout.H_FIRST])
        first = np.maximum(self.with_constant(contexts) ** 2 @ s[start : start + self.state.dim], 1e-300)
        share = np.minimum(wide**2 / np.expand_dims(first, -1), 1.0)
        return np.asarray(s[layout.H_ALPHA] * wide + s[layout.H_COLD] * share)

    def freeze(self) -> Iterator[Callable[[ArrayLike], Utilities] | None]:
        """Copy what `utilities` reads, some 20 microseconds for each ``next()``; the last item is that of the copy."""
        live = self.buffer
        frozen = object.__new__(type(self))
        frozen.__dict__.update(self.__dict__)
        frozen.buffer = np.zeros_like(live)
        start, pack, room = int(live[layout.H_COV]), int(live[layout.H_PACK]), int(live[layout.H_ROOM])
        frozen.buffer[:start] = live[:start]  # header and means
        arm = int(live[layout.H_ARM])
        end = arm + layout.ARM_SLOTS * room
        frozen.buffer[arm:end] = live[arm:end]
        ridges = int(live[layout.H_RIDGES])  # of an arm of which nothing was learned they tell the width
        end = ridges + int(live[layout.H_ARMS]) * int(live[layout.H_PAD])
        frozen.buffer[ridges:end] = live[ridges:end]
        first = int(live[layout.H_FIRST])
        frozen.buffer[first : first + self.state.dim] = live[first : first + self.state.dim]
        level = int(live[layout.H_LEVEL])
        frozen.buffer[level : level + self.dim] = live[level : level + self.dim]
        stop = start + int(frozen.buffer[layout.H_ARMS]) * pack
        step = max(1, HELD // pack) * pack  # whole arms: half of one width and half of another is neither
        for at in range(start, stop, step):
            yield None
            frozen.buffer[at : min(at + step, stop)] = live[at : min(at + step, stop)]
        yield frozen.utilities

    def compiled(self) -> Compiled | None:
        """Return the policy itself, unless a subclass learns or chooses in a way of its own."""
        own = type(self)
        ours = own.update.__module__.startswith("banditroute.policies") and own.select.__module__.startswith(
            "banditroute.policies"
        )
        return self if ours else None

    @abstractmethod
    def draw_noise(self) -> None:
        """Fill the noise block again."""

    def reseed(self) -> None:
        """Take new random numbers from the system, those drawn ahead included."""
        super().reseed()
        self.draw_noise()

    def continue_from(self, other: Self) -> None:
        """Go on with the random numbers of another policy, drawn ahead or not, with its generations and factors."""
        super().continue_from(other)
        if self.state.noise.shape != other.state.noise.shape:
            rows, width = (int(other.buffer[slot]) for slot in (layout.H_ROWS, layout.H_WIDTH))
            self.state = self.state.resized(list(range(self.state.arms)), rows=rows, width=width)
            self.rename(self.arms)
        self.state.noise[:] = other.state.noise
        self.buffer[layout.H_CURSOR] = other.buffer[layout.H_CURSOR]
        for source, factors in other.factors.items():
            for arm, factor in enumerate(factors):
                self.widen(arm, source, factor)

    # The whole state.

    def to_state(self) -> tuple[Header, Arrays]:
        """Return a JSON-able header and copies of all arrays."""
        return self._header(), self.state.to_arrays()

    def _header(self) -> Header:
        header = {"policy": type(self).__name__, "arms": list(self.arms), "dim": self.dim}
        return header | {"generations": dict(self.generations), "rng": self._rng.bit_generator.state}

    def capture_slices(self) -> Generator[tuple[Header, Arrays] | None, None, None]:
        """Copy the state, a few arms for each ``next()``; what changes meanwhile is copied first."""
        if type(self).to_state is not LinearSums.to_state:  # of a subclass that keeps more
            yield from super().capture_slices()
            return
        header, copy = self._header(), StateCopy(self.state)
        try:
            yield None
            for _ in copy.slices():
                yield None
            yield header, copy.arrays
        finally:
            copy.end()

    # Evidence: see `EvidencePolicy`.

    def fingerprint(self) -> dict[str, Any]:
        """Return what must agree before evidence may be joined; how a policy explores need not."""
        sums = self.empty_evidence().buckets[0]
        prepare(
            credit,
            sums["gram"],
            sums["moment"],
            sums["sums"],
            np.zeros(1),
            np.zeros(self.state.pad),
            0.0,
            1.0,
        )
        return {
            "kind": "diagonal" if self._diagonal else "linear",
            "dim": self.dim,
            "intercept": self.intercept,
            "discount": float(self.buffer[layout.H_DISCOUNT]),
            "bucket_size": self.span,
        }

    @property
    def shared_names(self) -> tuple[str, ...]:
        """Nothing: the pooled prior follows from the sums of the arms."""
        return ()

    @property
    def bucket(self) -> int:
        """The current bucket of the clock, 0 without discount."""
        return int(self.buffer[layout.H_BUCKET])

    def empty_evidence(self) -> ArmEvidence:
        """Return evidence of nothing: packed ``gram``, ``moment`` and ``sums`` (count, weight, square)."""
        state = self.state
        sums: Sums = {"gram": np.zeros(state.pack), "moment": np.zeros(state.pad), "sums": np.zeros(3)}
        return ArmEvidence(0, -1, {0: sums})

    def evidence(self, arm: str) -> ArmEvidence:
        """Return a copy of the sums of one arm, aged to the current bucket."""
        a, state = self.index(arm), self.state
        sums: Sums = {
            "gram": state.whole(a),
            "moment": state.moment[a].copy(),
            "sums": state.arm[a, SUMS],
        }
        return ArmEvidence(self.generation(arm), -1, {self.bucket: sums})

    def set_evidence(self, arm: str, total: ArmEvidence) -> None:
        """Put sums in the place of those of one arm: a rebuild, O(dim^3), and a refresh where one is due."""
        a, empty = self.index(arm), self.empty_evidence()
        newest = max(total.buckets, default=0)
        flat(total, empty, newest)
        if self.span and newest > self.bucket:
            self.advance(newest * self.span)
        sums = flat(self.aged(total, self.bucket), empty, self.bucket)
        state, s = self.state, self.buffer
        changing(state, a)
        state.give_up()
        state.put(a, sums["gram"])
        state.moment[a], state.arm[a, SUMS] = sums["moment"], sums["sums"]
        state.doubt_levels(a)
        state.arm[a, layout.A_TIGHTEN] = 0.0
        derived.loosen(s, a)
        derived.rebuild(s, a)
        self.set_generation(arm, total.generation)
        s[layout.H_LEARNED] = state.arm[:, layout.A_COUNT].sum()
        if s[layout.H_LEARNED] >= s[layout.H_REFRESH]:
            changing(state)
            refresh.refresh(s)

    def draft_evidence(self, arm: str, total: ArmEvidence) -> EvidenceDraft | None:
        """Begin what `set_evidence` does, so that the rebuild needs no lock; None where other arms would change too."""
        a, empty = self.index(arm), self.empty_evidence()
        newest = max(total.buckets, default=0)
        flat(total, empty, newest)
        s = self.buffer
        if type(self).set_evidence is not LinearSums.set_evidence or (self.span and newest > self.bucket):
            return None
        sums = flat(self.aged(total, self.bucket), empty, self.bucket)
        learned = s[layout.H_LEARNED] - self.state.arm[a, layout.A_COUNT] + sums["sums"][0]
        if learned >= s[layout.H_REFRESH]:
            return None
        return EvidenceDraft(self, arm, total.generation, ArmDraft(self.state, a, sums))

    def take_draft(self, arm: str, generation: int, draft: ArmDraft) -> bool:
        """Put the derived numbers of an arm in place; False where they do not hold any more."""
        state, s = self.state, self.buffer
        counts = state.arm[:, layout.A_COUNT]
        learned = counts.sum() - counts[draft.arm] + draft.count
        if self.positions.get(arm) != draft.arm or learned >= s[layout.H_REFRESH] or not draft.apply(state):
            return False
        s[layout.H_LEARNED] = counts.sum()
        self.set_generation(arm, generation)
        return True

    def credit(
        self, evidence: ArmEvidence, x: Floats, reward: float, weight: float = 1.0, at: int = 0
    ) -> ArmEvidence:
        """Return evidence with one more reward in it, O(dim^2); works in place."""
        bucket = at // self.span if self.span else 0
        newest = max(evidence.buckets, default=bucket)
        if not evidence.buckets:
            evidence = evidence._replace(buckets={bucket: self.empty_evidence().buckets[0]})
        if bucket > newest:
            evidence, newest = self.aged(evidence, bucket), bucket
        elif bucket < newest:
            weight *= float(self.buffer[layout.H_DISCOUNT]) ** (self.span * (newest - bucket))
        sums = evidence.buckets[newest]
        if weight > 0.0:
            scratch = np.empty(self.state.pad)
            row = self.with_constant(x)
            credit(sums["gram"], sums["moment"], sums["sums"], row, scratch, float(reward), float(weight))
        return evidence

    def aged(self, evidence: ArmEvidence, bucket: int) -> ArmEvidence:
        """Return evidence as it counts in a later bucket."""
        newest = max(evidence.buckets, default=bucket)
        if not self.span or bucket <= newest:
            return copied(evidence)
        factor = float(self.buffer[layout.H_DISCOUNT]) ** (self.span * (bucket - newest))
        sums = evidence.buckets[newest]
        scale = 1.0 - AGES + AGES * factor
        aged: Sums = {
            "gram": sums["gram"] * factor,
            "moment": sums["moment"] * factor,
            "sums": sums["sums"] * scale,
        }
        return evidence._replace(buckets={bucket: aged})

    # Arms that come and go, and statistics of another policy.

    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``, or start cold where that is None.

        What an arm that left had told the pooled prior is forgotten: at once where an arm starts cold in its place
        (`forget`); otherwise at the next refresh, so that the others do not notice, and a new arm does not start from
        it.
        """
        old, count = self.state, self.state.arms
        self.raise_generations(keep)
        for name, factors in self.factors.items():
            self.factors[name] = [1.0 if a is None else factors[a] for a in keep]
        width = int(self.buffer[layout.H_WIDTH]) - count + len(keep) if self.buffer[layout.H_SAMPLE] else 1
        pooled = self.buffer[layout.H_POOLED] > 0.0
        if (
            pooled
            and keep == [*range(count), None]
            and not old.buffer[layout.H_LEFT]
            and old.grown(width=width)
        ):
            old.prior[-1] = old.theta[-1] = old.prior[0]  # that of all arms
            return
        new = old.resized(keep, width=width)
        s = new.buffer
        forgotten = [i for i, a in enumerate(keep) if a is None and i < count and i not in keep]
        s[layout.H_LEARNED] = new.arm[:, layout.A_COUNT].sum()
        due = max(np.ceil(layout.GROWTH * s[layout.H_LEARNED]), layout.FIRST_REFRESH)
        s[layout.H_REFRESH] = min(s[layout.H_REFRESH], due) if s[layout.H_REFRESH] < inf else inf
        if not set(range(count)) <= set(keep):
            s[layout.H_LEFT] = 1.0
        if not pooled:
            for i in forgotten:
                new.prior[i] = new.theta[i] = old.prior[i]
        self.state = new
        estimated = (
            bool(old.prior.any() if pooled else s[layout.H_SIGMA2] > 0.0) and s[layout.H_REFRESH] < inf
        )
        if estimated and forgotten:
            refresh.refresh(s)
        elif estimated and pooled:
            self._start_from_the_pool([i for i, a in enumerate(keep) if a is None])

    def _start_from_the_pool(self, arms: list[int]) -> None:
        """Give new arms the prior that a refresh would find now; the others keep theirs until there is one."""
        if not arms:
            return
        spare = LinearState.from_arrays(self.state.to_arrays())
        refresh.refresh(spare.buffer)
        for i in arms:
            self.state.prior[i] = self.state.theta[i] = spare.prior[i]
