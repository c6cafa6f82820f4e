"""What LinUCB, LinTS, Diag-LinUCB and epsilon-greedy share: one buffer and the kernels on it."""

from collections.abc import Iterable, Mapping
from math import inf
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.kernels import derived, layout, loop, prepare, prepare_soon, refresh
from banditroute._core.kernels import linear as k
from banditroute._core.kernels import rows as batch
from banditroute._core.typing import Floats, Rng
from banditroute.policies.base import (
    LARGEST,
    Choice,
    Scores,
    Settings,
    check_generations,
    check_settings,
    mixed,
)
from banditroute.policies.linear_evidence import LinearSums
from banditroute.policies.linear_settings import agree, under_settings
from banditroute.policies.linear_slices import changing, learning, upkeeping
from banditroute.policies.linear_state import LinearState

__all__ = ["LinearPolicy"]

Prior = Literal["pooled"] | ArrayLike | None
Scale = float | Literal["auto"]

_select, _select_offered, _learn = k.select, k.select_offered, k.learn  # one look-up less per call

NOISE = 4096  # random numbers drawn ahead at a time, where each decision takes several
ALONE = 1024  # and where each takes one: the longest `select` of a small table is the one that draws
WIDTHS = 1.0  # the automatic alpha in noise scales, of a bound as of a posterior sample
LATEST = 1 << 52  # clock indices up to here are exact as floats


def compile_kernels() -> None:
    """Compile what a request needs; a policy does so when it is made. Everything else is compiled at its first use.

    The refresh is first needed at the sixteenth reward: until then a thread compiles it, once on a machine.
    """
    state = LinearState(1, 1, ridge=1.0)
    s, x = state.buffer, np.zeros(1)
    prepare(k.select, s, x)
    prepare(k.select_offered, s, x, x)
    prepare(k.learn, s, 0, x, 0.0, 1.0, 0)
    prepare_soon(refresh.upkeep, s)


def compile_rest() -> None:
    """Compile the other kernels of the linear policies too."""
    state = LinearState(1, 1, ridge=1.0)
    s, x, rows, arms = state.buffer, np.zeros(1), np.zeros((1, 1)), np.zeros(1, dtype=np.int64)
    prepare(refresh.upkeep, s)
    prepare(batch.predict, s, x, x, x)
    prepare(batch.predict_rows, s, rows, rows, rows)
    prepare(batch.choose_rows, s, rows, rows, arms, x, 0)
    prepare(loop.learn_rows, s, arms, rows, x)
    prepare(refresh.advance, s, 0.0)
    prepare(refresh.refresh, s)
    prepare(derived.drain_all, s)
    prepare(derived.rebuild, s, 0)


class LinearPolicy(LinearSums):
    """Linear arms on one packed state; subclasses fix the bonus of an arm. Parameters: see `LinUCB`.

    Examples
    --------
    >>> from banditroute import LinTS, LinUCB
    >>> issubclass(LinUCB, LinearPolicy), issubclass(LinTS, LinearPolicy)
    (True, True)
    """

    _diagonal = False
    _sampling = False

    def __init__(
        self,
        arms: int | Iterable[str],
        dim: int,
        *,
        alpha: Scale = "auto",
        ridge: Scale = "auto",
        prior: Prior = "pooled",
        discount: float = 1.0,
        mix: float = 0.0,
        intercept: bool = False,
        max_norm: float = 1e6,
        rng: Rng = None,
    ) -> None:
        super().__init__(arms, dim, max_norm=max_norm, rng=rng)
        compile_kernels()
        count = len(self.arms)
        auto_ridge = isinstance(ridge, str) and ridge == "auto"
        auto_alpha = isinstance(alpha, str) and alpha == "auto"
        first_ridge = 1.0 if auto_ridge else check.finite("ridge", ridge, low=1 / LARGEST, high=LARGEST)
        width = 1 + (count if self._sampling else 0)
        if not isinstance(intercept, bool):
            raise TypeError(f"intercept must be True or False, got {intercept!r}")
        self.state = LinearState(
            count,
            self.dim + intercept,
            ridge=first_ridge,
            diagonal=self._diagonal,
            constant=intercept,
            rows=ALONE if width == 1 else max(1, NOISE // width),
            width=width,
        )
        head = self.state.buffer
        head[layout.H_ALPHA] = (
            layout.FIRST_ALPHA if auto_alpha else check.finite("alpha", alpha, low=0.0, high=LARGEST)
        )
        head[layout.H_MIX] = check.unit("mix", mix)
        head[layout.H_SAMPLE] = self._sampling
        # A little more than the border allows: the kernel rounds otherwise and must not refuse what passed there.
        head[layout.H_MAX2] = self.max_norm**2 * (1.0 + 1e-9)
        head[layout.H_DISCOUNT] = check.finite("discount", discount, low=0.0, high=1.0, open_low=True)
        head[layout.H_SPAN] = max(1, round(0.1 / (1.0 - head[layout.H_DISCOUNT]))) if discount < 1.0 else 1.0
        self.span = int(head[layout.H_SPAN]) if discount < 1.0 else 0
        if self.span:
            prepare(refresh.advance, LinearState(1, 1, ridge=1.0).buffer, 0.0)
        head[layout.H_AUTO], head[layout.H_AUTO_RIDGE] = (
            (1.0 if self._sampling else WIDTHS) * auto_alpha,
            auto_ridge,
        )
        pooled = isinstance(prior, str)
        if pooled and prior != "pooled":
            raise ValueError(
                f"prior must be 'pooled', None or means of shape ({count}, {self.state.dim}), got {prior!r}"
            )
        head[layout.H_POOLED], head[layout.H_POOL_RIDGE] = float(pooled), 1.0
        head[layout.H_REFRESH] = layout.FIRST_REFRESH if pooled or auto_alpha or auto_ridge else inf
        if head[layout.H_REFRESH] < inf:
            self.state.touch()
        if prior is not None and not pooled:
            means = check.matrix("prior", prior, columns=self.state.dim, rows=count)
            if np.abs(means).max() > LARGEST:
                raise ValueError(f"prior must be in [-{LARGEST:g}, {LARGEST:g}], got {np.abs(means).max():g}")
            self.state.prior[:, : self.state.dim] = means
            self.state.theta[:] = self.state.prior
        self.factors: dict[str, list[float]] = {}
        self._bind()
        self.draw_noise()

    def _bind(self) -> None:
        self.buffer, self._copies = self.state.buffer, self.state.copies
        self._count = len(self.arms)
        self._sure = tuple(Choice(a, 1.0) for a in range(self._count))

    def __deepcopy__(self, memo: dict[int, Any]) -> "LinearPolicy":
        """Copy the buffer and the generator; rebind what points into them."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.state = LinearState.from_arrays(self.state.to_arrays())
        new.generations = dict(self.generations)
        new.factors = {source: list(given) for source, given in self.factors.items()}
        new._rng = np.random.Generator(type(self._rng.bit_generator)())
        new._rng.bit_generator.state = self._rng.bit_generator.state
        new._bind()
        return new

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is derived, so that processes can receive a policy."""
        return {
            key: value for key, value in self.__dict__.items() if key not in ("buffer", "_copies", "_sure")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebind what was left out."""
        super().__setstate__(state)
        compile_kernels()
        self._bind()

    def select(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Choice:
        """Choose the arm with the largest mean + bonus - price; ties are split evenly.

        Parameters
        ----------
        x : (dim,) array
            Context; a contiguous float64 array is taken as it is, anything else is converted.
        prices : (k,) array, optional
            Known additive cost of each arm for this request, in reward units.
        eligible : (k,) bool array, optional
            Arms allowed for this request.

        Returns
        -------
        Choice
            Index of the arm and its propensity. One row of random numbers is used, whatever the outcome.

        Raises
        ------
        ValueError, TypeError
            Wrong shape, dtype or value; nothing changed.

        Notes
        -----
        O(k dim) for the means and O(dim^2) for each arm whose bound reaches the best score; exact.
        """
        if prices is not None or eligible is not None:
            return self.select_priced(x, self.effective_prices(prices, eligible))
        code: int
        try:
            code = _select(self.buffer, x)
        except (TypeError, AttributeError, ValueError):  # not an array as the kernel takes it
            code = _select(self.buffer, self.check_context(x))
        if 0 <= code < self._count:
            return self._sure[code]
        if code >= 0:
            return Choice(code - self._count, self.buffer[layout.H_PROPENSITY].item())
        self._refill(x, code)
        return self.select(x)

    def select_priced(self, x: ArrayLike, offers: Floats) -> Choice:
        """As `select`, for a caller that has folded prices and mask already: they are not checked again."""
        code: int
        try:
            code = _select_offered(self.buffer, x, offers)
        except (TypeError, AttributeError, ValueError):
            code = _select_offered(self.buffer, self.check_context(x), offers)
        if 0 <= code < self._count:
            return self._sure[code]
        if code >= 0:
            return Choice(code - self._count, self.buffer[layout.H_PROPENSITY].item())
        self._refill(x, code)
        return self.select_priced(x, offers)

    def _refill(self, x: ArrayLike, code: int) -> None:
        """Draw more noise if that is what the kernel missed, or raise; a refused request draws nothing."""
        if code != layout.NO_NOISE:
            self.check_context(x)
            raise ValueError(f"the request was refused with code {code}")
        self.draw_noise()

    def update(
        self, arm: int | str, x: ArrayLike, reward: float, *, weight: float = 1.0, at: int | None = None
    ) -> None:
        """Learn one reward: O(dim^2), no solve.

        Parameters
        ----------
        arm : int or str
            Index or name of the arm that served the request.
        x : (dim,) array
            Context of that request.
        reward : float
            Finite.
        weight : float
            Positive; how many equal observations this one stands for.
        at : int, optional
            Clock index of the decision, for discounting; the next index when left out.

        Raises
        ------
        UnknownArm, ValueError, TypeError
            Nothing changed.
        """
        a = arm if type(arm) is int else self.index(arm)
        if at is None:
            at = -1
        elif (
            type(at) is not int or not 0 <= at < LATEST
        ):  # the kernel would take -3 for "next" and cut 2.7 down to 2
            at = check.integer("at", at, high=LATEST)
        if self._copies:
            learning(self.state, a, at)
        try:
            code = _learn(self.buffer, a, x, reward, weight, at)
        except (TypeError, AttributeError, ValueError, OverflowError):
            a, (reward, weight) = self.index(a), self.check_reward(reward, weight)
            code = _learn(self.buffer, a, self.check_context(x), reward, weight, at)
        if code:
            self._attend(code, a, x, reward, weight, at)

    def _attend(self, code: int, a: int, x: ArrayLike, reward: float, weight: float, at: int) -> None:
        """Do what `learn` asked for, a slice of upkeep or a new bucket, or raise what it refused."""
        if code == layout.AGED:
            when = self.buffer[layout.H_CLOCK] if at < 0 else at
            refresh.advance(self.buffer, float(when // self.span))
            code = _learn(self.buffer, a, self.check_context(x), reward, weight, at)
        if code == layout.DUE:
            if self._copies:
                upkeeping(self.state)
            refresh.upkeep(self.buffer)
        elif code:
            self.index(a)
            self.check_reward(reward, weight)
            self.check_context(x)
            raise ValueError(f"the update was refused with code {code}")

    def scores(self, x: ArrayLike) -> Scores:
        """Return mean and width of every arm for one context; O(k dim^2).

        Parameters
        ----------
        x : (dim,) array

        Returns
        -------
        Scores
            ``mean`` (k,) in reward units, ``width`` (k,) = sqrt(x' A^-1 x), not multiplied by alpha.
        """
        s = self.buffer  # once: another thread may add an arm, which may make a new one
        row = self.check_context(x)
        while True:
            mean, std = np.empty(int(s[layout.H_ARMS])), np.empty(int(s[layout.H_ARMS]))
            if batch.predict(s, row, mean, std) == 0:  # else another thread added an arm just now
                return Scores(mean, std)

    def scores_batch(self, contexts: ArrayLike) -> Scores:
        """Return mean and width of every arm for each row: two (n, k) arrays."""
        rows = check.matrix("contexts", contexts, columns=self.dim)
        self.check_norms(rows)
        s = self.buffer
        rows = rows if rows.flags.carray else rows.copy()
        while True:
            shape = (len(rows), int(s[layout.H_ARMS]))
            mean, std = np.empty(shape), np.empty(shape)
            if batch.predict_rows(s, rows, mean, std) == 0:
                return Scores(mean, std)

    def propensities(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Floats:
        """Return the probability of every arm, shape (k,); the same rule as `select`, by a full scan.

        Parameters
        ----------
        x : (dim,) array
        prices, eligible : (k,) arrays, optional

        Returns
        -------
        (k,) array
            Sums to 1; exactly 0 where not eligible.
        """
        row = self.check_context(x)
        (mean, width), seen = self.scores(row), self.explored(row)
        if seen is not row:
            width = self.scores(seen).width
        offers = self.effective_prices(prices, eligible)
        index = mean + self.lift(mean) - (offers - offers.min()) + self.bonus(seen, width)
        return self._mixed(np.asarray(index == index.max(), dtype=np.float64), offers)

    @property
    def rule(self) -> str:
        """How a choice follows from the index."""
        return mixed("plays the largest index, ties split evenly", float(self.buffer[layout.H_MIX]))

    @property
    def scales(self) -> bool:
        """True: means are linear in the context."""
        return True

    def _mixed(self, pure: Floats, offers: Floats) -> Floats:
        allowed = np.isfinite(offers)
        mix = self.buffer[layout.H_MIX]
        return np.asarray((1.0 - mix) * pure / pure.sum() + mix * allowed / allowed.sum())

    def select_batch(
        self, contexts: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> tuple[NDArray[np.int64], Floats]:
        """Choose an arm for each row, equal to the loop over `select` number for number.

        Parameters
        ----------
        contexts : (n, dim) array
        prices, eligible : (k,) or (n, k) arrays, optional

        Returns
        -------
        arms : (n,) int64 array
        propensities : (n,) float array
        """
        rows = check.matrix("contexts", contexts, columns=self.dim)
        self.check_norms(rows)
        n = len(rows)
        offers = np.empty((0, self._count))
        if prices is not None or eligible is not None:
            p = np.broadcast_to(0.0 if prices is None else np.asarray(prices), (n, self._count))
            e = np.broadcast_to(True if eligible is None else np.asarray(eligible), (n, self._count))
            offers = np.array([self.effective_prices(p[i], e[i]) for i in range(n)]).reshape(n, self._count)
        arms, propensities = np.empty(n, dtype=np.int64), np.empty(n)
        rows = rows if rows.flags.carray else rows.copy()
        done = 0
        while done < n:
            done = batch.choose_rows(self.buffer, rows, offers, arms, propensities, done)
            if done < 0:
                raise ValueError(f"a request was refused with code {done}")
            if done < n:
                self.draw_noise()
        return arms, propensities

    def update_batch(self, contexts: ArrayLike, arms: ArrayLike, rewards: ArrayLike) -> None:
        """Learn many rewards at once; equal to the loop over `update` up to rounding.

        Parameters
        ----------
        contexts : (n, dim) array
        arms : (n,) array
            Indices, or names.
        rewards : (n,) array

        Raises
        ------
        UnknownArm, ValueError, TypeError
            Everything is checked before anything is learned.

        Notes
        -----
        Up to 4 dim rows: one rank-one step each, bit for bit the loop. Beyond: one matrix product per arm, a rebuild
        of the arms concerned and one refresh of the pooled prior, O(n dim^2 + k dim^3) at the speed of a matrix
        product; the statistics are those of the loop, and theta that of the loop followed by `refresh`.
        """
        rows, chosen, given = self.check_batch(contexts, arms, rewards)
        changing(self.state)
        state = self.state
        if len(rows) <= 4 * state.dim or self.span or self._diagonal:
            loop.learn_rows(
                self.buffer, chosen, np.require(rows, requirements="W"), np.require(given, requirements="W")
            )
            return
        rows = self.with_constant(rows)
        state.give_up()
        state.notice(rows, given)
        for a in np.unique(chosen).tolist():
            mine = chosen == a
            x, r = rows[mine], given[mine]
            state.gram[a] += state.packed(x.T @ x)
            state.moment[a, : state.dim] += r @ x
            state.arm[a, [layout.A_COUNT, layout.A_WEIGHT]] += len(x)
            state.arm[a, layout.A_SQUARE] += r @ r
            derived.rebuild(self.buffer, a)
        self.buffer[[layout.H_LEARNED, layout.H_CLOCK]] += len(rows)
        if self.buffer[layout.H_LEARNED] >= self.buffer[layout.H_REFRESH]:
            refresh.refresh(self.buffer)

    def draw_noise(self) -> None:
        """Fill the noise block: per decision one uniform number and, for sampling, a normal one per arm."""
        rows, width = int(self.buffer[layout.H_ROWS]), int(self.buffer[layout.H_WIDTH])
        block = self.state.noise.reshape(rows, width)
        block[:, 0] = self._rng.random(rows)
        if width > 1:
            block[:, 1:] = self._rng.standard_normal((rows, width - 1))
        self.buffer[layout.H_CURSOR] = 0.0

    def advance(self, at: int) -> None:
        """Age the statistics to the bucket of clock index `at` (discounting only); rebuilds, O(k dim^3)."""
        if self.buffer[layout.H_DISCOUNT] < 1.0:
            bucket = float(at // int(self.buffer[layout.H_SPAN]))
            if bucket > self.buffer[layout.H_BUCKET]:
                changing(self.state)
            refresh.advance(self.buffer, bucket)

    def rewind(self) -> None:
        """Start a new clock at index 0: what was learned so far counts as learned just now."""
        self.buffer[layout.H_CLOCK] = self.buffer[layout.H_BUCKET] = 0.0

    def refresh(self) -> None:
        """Refit the pooled prior and the noise scale now (they also refresh as feedback grows)."""
        changing(self.state)
        refresh.refresh(self.buffer)

    def rebuild(self) -> None:
        """Derive everything afresh from the statistics; forgets accumulated rounding. O(k dim^3)."""
        changing(self.state)
        self.state.rebuild()

    def rename(self, arms: tuple[str, ...]) -> None:
        """Take up the names of the arms, after `resize`."""
        super().rename(arms)
        if hasattr(self, "state"):
            self._bind()

    def load_state(
        self, header: Mapping[str, Any], arrays: Mapping[str, Floats], *, settings: Settings = "strict"
    ) -> None:
        """Continue from `to_state`; raises ``ValueError`` and changes nothing when the two do not fit.

        With ``settings="own"`` the sums are taken and everything else follows from the settings of this policy: width,
        ridge (fitted ones go on from where they were), prior, mix, longest context and discount. Under another discount
        the sums count as learned just now.
        """
        check_settings(settings)
        wanted = (type(self).__name__, self.dim)
        got = (check.entry("header", header, "policy"), check.entry("header", header, "dim"))
        if got != wanted:
            raise ValueError(f"state must be of {wanted}, got {got}")
        names, state = (
            check.names("arms", check.entry("header", header, "arms")),
            LinearState.from_arrays(arrays),
        )
        if state.constant != self.state.constant:
            raise ValueError(f"intercept must be {self.intercept} in the state too, got {state.constant}")
        if (
            state.arms != len(names)
            or state.dim != self.state.dim
            or (state.pack == state.pad) != self._diagonal
        ):
            raise ValueError(
                f"arrays must hold {len(names)} arms of {self.state.dim} components, got {state.arms} of {state.dim}"
            )
        generations = check_generations(header)
        if settings == "strict":
            agree(self.state, state)
        rng = check.generator("rng", self._rng, check.entry("header", header, "rng"))
        if settings != "strict":
            state = under_settings(self.state, state, [self.positions.get(name) for name in names])
        self.state, self._rng = state, rng
        self.factors, self.generations = {}, generations
        self.rename(names)
