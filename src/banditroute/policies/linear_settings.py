"""The settings of a linear policy: what a state must share, and statistics of one under those of another."""

from math import inf

from banditroute._core.kernels import derived, layout, refresh
from banditroute.policies.linear_draft import SUMS
from banditroute.policies.linear_state import LinearState

__all__ = ["agree", "under_settings"]

# What a state must share with the policy that takes it up, and where it is in the header.
SETTINGS = {
    "sampling": layout.H_SAMPLE,
    "automatic alpha": layout.H_AUTO,
    "automatic ridge": layout.H_AUTO_RIDGE,
    "pooled prior": layout.H_POOLED,
    "alpha": layout.H_ALPHA,
    "ridge": layout.H_RIDGE,
    "discount": layout.H_DISCOUNT,
    "decisions per bucket": layout.H_SPAN,
    "mix": layout.H_MIX,
    "squared max_norm": layout.H_MAX2,
}


def agree(mine: LinearState, given: LinearState) -> None:
    """Refuse a state of other settings; how many widths an automatic alpha is may have changed since.

    Examples
    --------
    >>> agree(LinearState(2, 1, ridge=1.0), LinearState(2, 1, ridge=1.0))
    """
    own, other = mine.buffer, given.buffer
    if other[layout.H_AUTO] > 0.0 and own[layout.H_AUTO] > 0.0:
        other[layout.H_AUTO] = own[layout.H_AUTO]
    for name, slot in SETTINGS.items():
        if name in ("alpha", "ridge") and own[SETTINGS[f"automatic {name}"]] > 0.0:
            continue  # fitted, not set
        if other[slot] != own[slot]:
            raise ValueError(f"{name} must be {own[slot]:g} in the state too, got {other[slot]:g}")


def under_settings(mine: LinearState, given: LinearState, keep: list[int | None]) -> LinearState:
    """Return what `given` has learned under the settings of `mine`; O(k dim^3).

    Parameters
    ----------
    mine, given : LinearState
        Of one dimension and kind of matrix.
    keep : list of int or None
        For each arm of `given` its place in `mine`, None for one that is not there.
    """
    head = given.buffer
    rows, width = int(head[layout.H_ROWS]), int(head[layout.H_WIDTH])
    new = LinearState(
        len(keep), mine.dim, ridge=float(mine.buffer[layout.H_RIDGE]), diagonal=mine.pack == mine.pad,
        constant=mine.constant, rows=rows, width=width,
    )  # fmt: skip
    s = new.buffer
    settings = [
        layout.H_ALPHA, layout.H_RIDGE, layout.H_MIX, layout.H_SAMPLE, layout.H_MAX2, layout.H_DISCOUNT,
        layout.H_SPAN, layout.H_POOLED, layout.H_POOL_RIDGE, layout.H_AUTO, layout.H_AUTO_RIDGE,
        layout.H_LEVEL_RIDGE, layout.H_COLD, layout.H_CALM,
    ]  # fmt: skip
    s[settings] = mine.buffer[settings]
    taken = [
        layout.H_CURSOR, layout.H_CLOCK, layout.H_LEARNED, layout.H_SEEN, layout.H_LOW, layout.H_HIGH,
    ]  # fmt: skip
    s[taken] = head[taken]
    new.level[:] = given.level
    new.target[:], new.first[:], new.ridges[:] = mine.target, mine.first, mine.target
    if s[layout.H_AUTO] > 0.0 and head[layout.H_AUTO] > 0.0:
        fitted = [layout.H_ALPHA, layout.H_COLD, layout.H_SIGMA2, layout.H_FEW, layout.H_TOP]
        s[fitted] = head[fitted]
    if s[layout.H_AUTO_RIDGE] > 0.0 and head[layout.H_AUTO_RIDGE] > 0.0:
        fitted = [layout.H_RIDGE, layout.H_LEVEL_RIDGE, layout.H_SIGMA2, layout.H_CALM]
        s[fitted] = head[fitted]
        new.target[:], new.first[:], new.ridges[:] = given.target, given.first, given.ridges
    # Sums are as of now: under another discount they count as learned in the bucket that the clock is in.
    same = s[layout.H_DISCOUNT] == head[layout.H_DISCOUNT]
    s[layout.H_BUCKET] = (
        head[layout.H_BUCKET]
        if same
        else s[layout.H_CLOCK] // s[layout.H_SPAN]
        if s[layout.H_DISCOUNT] < 1.0
        else 0.0
    )
    new.noise[:] = given.noise
    new.gram[:], new.moment[:], new.arm[:, SUMS] = given.gram, given.moment, given.arm[:, SUMS]
    if s[layout.H_POOLED] > 0.0:
        new.prior[:] = given.prior if head[layout.H_POOLED] > 0.0 else 0.0
    else:
        for i, a in enumerate(keep):
            if a is not None:
                new.prior[i] = mine.prior[a]
    for a in range(len(keep)):
        derived.loosen(s, a)
        derived.rebuild(s, a)
    s[layout.H_REFRESH] = layout.FIRST_REFRESH if mine.buffer[layout.H_REFRESH] < inf else inf
    if s[layout.H_LEARNED] >= s[layout.H_REFRESH]:
        refresh.refresh(s)
    return new
