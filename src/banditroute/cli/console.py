"""What commands share: progress bars, work over seeds, traces read, aligned tables, files written."""

import csv
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from banditroute.logs import Trace
from banditroute.simulation import Outcome

__all__ = [
    "aligned",
    "over_seeds",
    "plus_minus",
    "positive",
    "saved_trace",
    "steps",
    "write_csv",
    "write_json",
]

_WORTH_A_PROCESS = 50_000  # requests: below, starting processes takes longer than the work


def positive(text: str) -> int:
    """Read a whole number above zero, for argparse.

    Examples
    --------
    >>> positive("20")
    20
    """
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


@contextmanager
def steps(label: str, total: int, unit: str = "step") -> Iterator[Callable[[str], None]]:
    """Give a function that moves a progress bar on stderr to the next step and names it.

    The bar appears on a terminal only, and not where tqdm is not installed.

    Examples
    --------
    >>> with steps("work", 2) as step:
    ...     step("reading")
    ...     step("writing")
    """
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda name: None
        return
    with tqdm(total=total, desc=label, unit=unit, disable=None, leave=False) as bar:
        begun = False

        def step(name: str) -> None:
            nonlocal begun
            bar.update(int(begun))  # a step is done when the next one begins
            bar.set_postfix_str(name)
            begun = True

        yield step
        bar.update(int(begun))


def saved_trace(path: Path) -> Trace | None:
    """Return the trace in a file, or None for an .npz file of other arrays.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file; neither a trace nor arrays.

    Examples
    --------
    >>> saved_trace(Path("nowhere.npz"))
    Traceback (most recent call last):
    FileNotFoundError: no file nowhere.npz
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    if path.suffix == ".npz":
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path} is not an .npz file; numpy.savez writes one")
        try:
            with zipfile.ZipFile(path) as archive:
                own = "header.npy" in archive.namelist()
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        if not own:
            return None
    return Trace.load(path)


def over_seeds(
    work: Callable[[int], list[Outcome]], seeds: int, *, requests: int, label: str
) -> list[list[Outcome]]:
    """Return the outcomes of seeds 0 .. seeds - 1 in order, from all cores, with a progress bar on stderr.

    The bar appears on a terminal only. Few requests in all stay in this process.

    Examples
    --------
    >>> over_seeds(lambda seed: [], 2, requests=1, label="nothing")
    [[], []]
    """
    try:
        from joblib import Parallel, cpu_count, delayed
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(f"needs {error.name}: pip install 'banditroute[demo]'") from error
    jobs = min(cpu_count(), seeds) if seeds * requests >= _WORTH_A_PROCESS else 1
    with tqdm(total=seeds, desc=label, unit="seed", disable=None) as bar:
        outcomes = [work(0)]  # here, so that it compiles what the other processes then find on disk
        bar.update()
        for one in Parallel(n_jobs=jobs, return_as="generator")(delayed(work)(s) for s in range(1, seeds)):
            outcomes.append(one)
            bar.update()
    return outcomes


def aligned(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a text table: the first column to the left, the others to the right, two blanks between.

    Examples
    --------
    >>> print(aligned(["name", "hits"], [["LRU", "3"], ["Polar", "12"]]))
    name   hits
    -----  ----
    LRU       3
    Polar    12
    """
    cells = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    cells.insert(1, ["-" * w for w in widths])
    return "\n".join(
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        .rstrip()
        for line in cells
    )  # fmt: skip


def plus_minus(figure: Mapping[str, float | None], form: str = ",.0f") -> str:
    """Return "mean ± half the interval", or the mean alone where one seed gives no interval.

    Examples
    --------
    >>> plus_minus({"mean": 1200.0, "low": 1150.0, "high": 1250.0})
    '1,200 ± 50'
    """
    mean, high = figure["mean"], figure["high"]
    assert mean is not None
    return f"{mean:{form}}" if high is None else f"{mean:{form}} ± {high - mean:{form}}"


def write_csv(path: Path, seeds: Iterable[Iterable[Outcome]]) -> Path:
    """Write the figures of every seed and contestant, one line each.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> one = Outcome("LRU", {"regret": 3.0}, np.ones(1), np.ones(1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_csv(Path(folder, "a.csv"), [[one]]).read_text().split()
    ['seed,name,regret', '0,LRU,3.0']
    """
    lines = [{"seed": seed, "name": o.name, **o.figures} for seed, own in enumerate(seeds) for o in own]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path


def write_json(path: Path, result: Mapping[str, Any]) -> Path:
    """Write a result as JSON.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     json.loads(write_json(Path(folder, "a.json"), {"seeds": 2}).read_text())
    {'seeds': 2}
    """
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path
