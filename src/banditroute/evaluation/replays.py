"""Replay: a learning policy's run over the rows of a trace that agree with it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Rng
from banditroute.evaluation.learned import warning
from banditroute.evaluation.overlap import known_propensities
from banditroute.logs import Trace
from banditroute.policies import Policy

__all__ = ["Replay", "replay"]


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """A policy's run over the rows of a trace that agree with it: `rewards` and row numbers in order, and `notes`.

    Examples
    --------
    >>> Replay(np.ones(4), np.arange(4), 8, 0.5).value
    1.0
    """

    rewards: Floats
    rows: NDArray[np.int64]
    offered: int
    scale: float
    notes: tuple[str, ...] = ()

    @property
    def value(self) -> float:
        """Mean reward per accepted request, learning included."""
        return float(self.rewards.mean())

    @property
    def std_error(self) -> float:
        """Standard error of `value` about the mean reward that this run could expect, over the noise of its rows."""
        return float(self.rewards.std(ddof=1) / np.sqrt(len(self.rewards)))


def replay(trace: Trace, policy: Policy, *, rng: Rng = 0, min_rows: int = 20) -> Replay:
    """Let a policy learn along a trace, from the rows on which its choice is what was logged.

    Parameters
    ----------
    trace : Trace
        With contexts and propensities; rows without a reward are left out.
    policy : Policy
        Learns: pass a fresh one, or a copy.
    rng : seed or Generator
        Of the rejection step; a uniform log needs none of it.
    min_rows : int
        Fewest accepted rows that are answered, >= 2.

    Returns
    -------
    Replay

    Raises
    ------
    ValueError
        Contexts or propensities are missing, the arms differ, an arm of the policy was never logged, or too few rows
        were accepted.

    Notes
    -----
    A row is accepted when the policy chooses the logged arm, with probability ``c / p`` where c is the smallest
    propensity of the log. The accepted rows are then distributed as if the policy had served them itself. On a uniform
    log ``c / p = 1``, the replay of Li, Chu, Langford and Wang (WSDM 2011); elsewhere it is rejection sampling (Dudik
    et al. 2012), and a share c of the rows survives. A log that was itself made by a learning policy is admissible,
    for its propensities are known.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> rng = np.random.default_rng(0)
    >>> arms = rng.integers(2, size=400)
    >>> trace = Trace(names=["a", "b"], arms=arms, rewards=1.0 * arms, propensities=np.full(400, 0.5),
    ...               contexts=np.ones((400, 1)))
    >>> replay(trace, LinUCB(["a", "b"], 1, rng=0)).value > 0.9
    True
    """
    log = trace.answered()
    contexts = log.contexts
    if contexts is None:
        raise ValueError("trace must hold contexts to replay a policy, got none")
    if policy.arms != log.names:
        raise ValueError(f"policy must have the arms of the trace, {log.names}, got {policy.arms}")
    if policy.dim != contexts.shape[1]:
        raise ValueError(f"policy must have dim {contexts.shape[1]} as the trace has, got {policy.dim}")
    propensities = known_propensities(log)
    missing = np.setdiff1d(np.arange(len(log.names)), log.arms)
    if len(missing):
        raise ValueError(f"every arm must have been logged, got no row of {log.names[missing[0]]!r}")
    _forced_rows(log, propensities)
    fewest = check.integer("min_rows", min_rows, low=2)
    told = warning(policy, log)
    scale = float(propensities.min())
    lottery = np.random.default_rng(rng).random(len(log))
    accept = lottery * propensities <= scale * (1.0 + 1e-12)
    policy.rewind()
    rows: list[int] = []
    for i in range(len(log)):
        choice = policy.select(
            contexts[i],
            prices=None if log.prices is None else log.prices[i],
            eligible=None if log.eligible is None else log.eligible[i],
        )
        if choice.arm == log.arms[i] and accept[i]:
            if policy.span:
                policy.advance(len(rows))
            policy.update(choice.arm, contexts[i], float(log.rewards[i]), at=len(rows))
            rows.append(i)
    if len(rows) < fewest:
        raise ValueError(f"at least {fewest} rows must agree with the policy, got {len(rows)} of {len(log)}")
    kept = np.array(rows, dtype=np.int64)
    return Replay(log.rewards[kept], kept, len(log), scale, () if told is None else (told,))


def _forced_rows(log: Trace, propensities: Floats) -> None:
    """Refuse to replay a log that had no choice where there was one."""
    options = np.full(len(log), len(log.names)) if log.eligible is None else log.eligible.sum(axis=1)
    fixed = (propensities > 1.0 - 1e-12) & (options > 1)
    if fixed.any():
        raise ValueError(
            f"the log must be able to choose every eligible arm, got propensity 1 on {int(fixed.sum())} rows; "
            "log with a share of exploration (mix > 0)"
        )
