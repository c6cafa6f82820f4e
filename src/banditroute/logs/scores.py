"""Wide tables: on every row the score, and perhaps the cost, of every arm."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from banditroute._core.typing import Floats
from banditroute.logs import cells, files, frames
from banditroute.logs.builder import Builder

__all__ = ["Scores", "score_columns"]

_COST = "|total_cost"  # RouterBench: a column of this ending beside the column of each model


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Scores:
    """What every arm earns, and perhaps costs, on every row: n rows, k arms.

    Parameters
    ----------
    arms : tuple of str
        Names of the k arms.
    rewards : (n, k) array
        Scores.
    costs : (n, k) array, optional
        What each call costs.
    contexts : (n, d) array, optional
        Numbers that describe the request.
    notes : tuple of str
        What there is to say of the file, such as columns that were not used.

    Examples
    --------
    >>> table = {"score:small": [0.2, 0.9], "score:large": [0.8, 0.9], "x": [0.0, 1.0]}
    >>> scores = Scores.read(table, reward="score:*", context=["x"])
    >>> scores.arms, scores.rewards.tolist(), scores.contexts.tolist()
    (('small', 'large'), [[0.2, 0.8], [0.9, 0.9]], [[0.0], [1.0]])
    """

    arms: tuple[str, ...]
    rewards: Floats
    costs: Floats | None = None
    contexts: Floats | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        source: Any,
        *,
        reward: str | Sequence[str] | None = None,
        cost: str | Sequence[str] | None = None,
        context: str | Sequence[str] | None = None,
    ) -> "Scores":
        """Read a wide table.

        Parameters
        ----------
        source : path or frame
            A CSV, JSON lines or Parquet file, or what `Trace.from_frame` takes.
        reward : str or list of str, optional
            Columns of scores: ``"score:*"`` names the arms by what the star stands for, a list by its titles. Left
            out, they are those of RouterBench: every column `M` beside which there is a column ``M|total_cost``.
        cost : str or list of str, optional
            Columns of costs, matched to the scores by what the star stands for; a list goes in the order of `reward`.
        context : str or list of str, optional
            One column of lists, or several of numbers.

        Raises
        ------
        FileNotFoundError, ValueError
            No such file; a cell without a number; costs of other arms than scores.

        Notes
        -----
        Arms that are whole numbers come in their order, others in that of the file.

        Examples
        --------
        >>> table = {"prompt": ["hi"], "gpt": [1.0], "llama": [0.0]}
        >>> bench = Scores.read({**table, "gpt|total_cost": [0.002], "llama|total_cost": [0.0]})
        >>> bench.arms, bench.costs.tolist(), bench.notes
        (('gpt', 'llama'), [[0.002, 0.0]], ('not used: `prompt`',))
        """
        path = Path(source) if isinstance(source, str | Path) else None
        wanted = score_columns(source if path is None else path, reward, cost, context)
        cost = wanted["charge"]
        also = {"score": cells.present_numbers, "charge": cells.present_numbers}

        def finish(builder: Builder) -> Scores:
            return cls._of(builder, ordered=not isinstance(cost, str))

        if path is None:
            return finish(frames.read_frame(source, wanted, also=also))
        return files.gather(path, wanted, finish=finish, also=also)

    @classmethod
    def _of(cls, builder: Builder, *, ordered: bool) -> "Scores":
        found = builder.gathered(("score",))
        rewards, costs = builder.parts("score"), builder.parts("charge")
        if costs and ordered:  # a list of columns, in the order of the scores
            if len(costs) != len(rewards):
                raise ValueError(f"there must be a cost for each of {list(rewards)}, got {list(costs)}")
            costs = dict(zip(rewards, costs.values(), strict=True))
        names = list(rewards)
        names = cells.sorted_names(names) if all(map(str.isdecimal, names)) else names
        if costs and costs.keys() != rewards.keys():
            raise ValueError(f"costs must be those of the arms {names}, got {list(costs)}")
        return cls(
            arms=tuple(names),
            rewards=np.stack([rewards[name] for name in names], axis=1),
            costs=np.stack([costs[name] for name in names], axis=1) if costs else None,
            contexts=found.values.get("contexts"),
            notes=found.notes,
        )


def score_columns(
    source: Any,
    reward: str | Sequence[str] | None = None,
    cost: str | Sequence[str] | None = None,
    context: str | Sequence[str] | None = None,
) -> dict[str, str | Sequence[str] | None]:
    """Return the titles of scores, charges and contexts, found where RouterBench's names say them.

    Examples
    --------
    >>> score_columns({"gpt": [1.0], "gpt|total_cost": [0.1]})
    {'score': ['gpt'], 'charge': ['gpt|total_cost'], 'context': None}
    """
    if reward is None:
        reward, own = _routerbench(
            files.titles(source) if isinstance(source, Path) else frames.titles(source)
        )
        cost = own if cost is None else cost
    return {"score": reward, "charge": cost, "context": context}


def _routerbench(held: Sequence[str]) -> tuple[list[str], list[str]]:
    arms = [title.removesuffix(_COST) for title in held if title.endswith(_COST)]
    arms = [arm for arm in arms if arm in held]
    if not arms:
        raise ValueError(
            f"reward must name the columns of scores, as in reward='score:*', --reward 'score:*' in a command; none of "
            f"{list(held)[:12]} has one of its "
            f"costs, {_COST!r}, beside it"
        )
    return arms, [arm + _COST for arm in arms]
