"""The counters of a Router as plain numbers."""

import time
from typing import Any

from banditroute.router.arms import Arms
from banditroute.router.parts import RouterParts

__all__ = ["arm_stats", "router_stats"]

STALE = 512  # decisions that may expire in one call
CHUNK, SPENT_S = 32, 1.5e-3  # so many between looks at the processor time: what expires may be learned


def router_stats(parts: RouterParts) -> dict[str, Any]:
    """Return what the parts count; the lock must be held.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> router_stats(Router(LinUCB(["a"], 1, rng=0)).parts)["arms"]["a"]["decisions"]
    0
    """
    books, ledger = parts.books, parts.ledger
    now, end = books.now(), time.thread_time() + SPENT_S
    for _ in range(STALE // CHUNK):
        if ledger.sweep(now, CHUNK) or time.thread_time() > end:
            break
    return {
        "arms": arm_stats(parts.arms),
        "sources": {} if parts.limits is None else parts.limits.stats(),
        "decisions": books.index,
        "hits": books.hits,
        "hit_rate": books.hits / books.index if books.index else 1.0,
        "learned": books.learned,
        "pending": len(ledger),
        "expired": ledger.expired,
        "cancelled": ledger.cancelled,
        "late": ledger.late,
        "duplicates": ledger.duplicates,
        "dropped": books.dropped,
        "forced": books.forced,
        "epoch": books.epoch,
        "page_ins": 0 if parts.residence is None else parts.residence.actual.page_ins,
        "passed_through": books.index - books.hits - books.inserted,
        "load_price": books.load_price,
        "spend": books.spend,
        "clock_errors": books.clock_errors,
        "callback_errors": books.errors.total(),
        "relaxed": parts.table.relaxed.total(),
        "plan_failures": 0,
        "load_failures": 0,
    }


def arm_stats(arms: Arms) -> dict[str, dict[str, float]]:
    """Return what is counted for each arm, by name."""
    return {
        name: {
            "decisions": arms.plays[a],
            "learned": arms.answers[a],
            "mean_reward": arms.reward_sums[a] / arms.answers[a] if arms.answers[a] else 0.0,
            "quarantined": int(arms.muted[a]),
        }
        for a, name in enumerate(arms.names)
    }
