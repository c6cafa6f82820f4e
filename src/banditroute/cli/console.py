"""What commands share: progress bars, work over seeds, traces read, aligned tables, files written."""

import argparse
import csv
import json
import sys
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from banditroute.cli.described import column_of, described
from banditroute.logs import Scores, Trace, from_dsjson, from_litellm, from_obp
from banditroute.simulation import Outcome

__all__ = [
    "aligned",
    "column_options",
    "columns_of",
    "is_wide",
    "over_seeds",
    "plus_minus",
    "positive",
    "saved_scores",
    "saved_trace",
    "say",
    "steps",
    "waiting",
    "write_csv",
    "write_json",
]

# Logs of other software, whose columns are known.
LAYOUTS: dict[str, Callable[..., Trace]] = {"obp": from_obp, "litellm": from_litellm, "dsjson": from_dsjson}
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


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show on a terminal that work goes on whose end nobody knows, and for how long already.

    Examples
    --------
    >>> with waiting("compiling"):
    ...     pass
    """
    if not sys.stderr.isatty():
        yield
        return
    done, start = threading.Event(), time.monotonic()

    def show() -> None:
        while not done.wait(0.5):
            print(f"\r{what}: {time.monotonic() - start:.0f} s", end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(1.0)
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def column_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which column of a file means what.

    Examples
    --------
    >>> parser = argparse.ArgumentParser()
    >>> column_options(parser)
    >>> columns_of(parser.parse_args(["--arm", "model", "--context", "e_*"]))
    {'arm': 'model', 'context': 'e_*'}
    """
    group = parser.add_argument_group(
        "columns of a CSV, JSON lines or Parquet file",
        "Where they are not called arm, reward, propensity ...; 'e_*' stands for all that begin so. A --reward of "
        "several columns is a table of the scores of all arms, --cost then their costs.",
    )
    add = group.add_argument
    for name, what in (
        ("arm", "names of the arms that were chosen"),
        ("propensity", "probabilities with which they were chosen"),
        ("time", "seconds or dates"),
        ("id", "ids of the decisions"),
    ):
        add(f"--{name}", metavar="COLUMN", help=what)
    for name, what in (
        ("reward", "rewards; of several columns the scores of all arms"),
        ("cost", "what the call did cost"),
        ("context", "one column of lists, or several of numbers"),
        ("eligible", "one column of lists of names, or one per arm"),
    ):
        add(f"--{name}", nargs="+", metavar="COLUMN", help=what)
    add(
        "--features",
        nargs="+",
        type=column_of,
        metavar="COLUMN[=KIND]",
        help="contexts of any columns: words=number tier=category prompt=text:64 e_*=embedding:16; a kind left out "
        "follows from the cells, and is told",
    )
    add(
        "--layout",
        choices=[*LAYOUTS, "routerbench"],
        help="the file is of the Open Bandit Dataset, of LiteLLM, of vw (.dsjson files are), or a wide table",
    )


def columns_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the columns that options name, by field.

    Examples
    --------
    >>> columns_of(argparse.Namespace(arm="model", reward=["score"], context=["x", "y"]))
    {'arm': 'model', 'reward': 'score', 'context': ['x', 'y']}
    """
    found: dict[str, Any] = {}
    for name in ("arm", "reward", "propensity", "context", "cost", "time", "id", "eligible"):
        given = getattr(args, name, None)
        if given is not None:
            found[name] = given[0] if isinstance(given, list) and len(given) == 1 else given
    return found


def is_wide(path: Path, args: argparse.Namespace) -> bool:
    """Tell whether options say that a file that is no .npz holds the scores of all arms on every row.

    Examples
    --------
    >>> is_wide(Path("log.csv"), argparse.Namespace(reward=["score:*"]))
    True
    """
    reward = columns_of(args).get("reward", "")
    several = isinstance(reward, list) or "*" in reward
    return path.suffix != ".npz" and (several or getattr(args, "layout", None) == "routerbench")


def saved_scores(path: Path, args: argparse.Namespace) -> Scores:
    """Return the table of the scores of all arms in a file; notes go to stderr.

    Examples
    --------
    >>> saved_scores(Path("nowhere.csv"), argparse.Namespace())
    Traceback (most recent call last):
    FileNotFoundError: no file nowhere.csv
    """
    columns = columns_of(args)
    odd = next((name for name in columns if name not in ("reward", "cost", "context")), None)
    if odd is not None:
        raise ValueError(f"--{odd} is for a log: {path} is read as the scores of all arms")
    _no_keys(path, args)
    found = Scores.read(path, **columns)
    if wanted := getattr(args, "features", None):
        found = described(found, path, columns, wanted)
    say(path, found.notes)
    return found


def saved_trace(path: Path, args: argparse.Namespace | None = None) -> Trace | None:
    """Return the trace in a file or a folder, or None for an .npz file of other arrays; notes go to stderr.

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
    columns = {} if args is None else columns_of(args)
    layout = "dsjson" if path.suffix == ".dsjson" else getattr(args, "layout", None)
    wanted = getattr(args, "features", None)
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    if path.suffix == ".npz" and not columns:
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path} is not an .npz file; numpy.savez writes one")
        try:
            with zipfile.ZipFile(path) as archive:
                own = "header.npy" in archive.namelist()
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        if not own:
            if wanted:
                raise ValueError(
                    f"--features is for columns of CSV, JSON lines or Parquet: {path} has arrays"
                )
            return None
    if args is not None:
        _no_keys(path, args)
        _for_a_log(path, args)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # told below, in one line each
        if layout in LAYOUTS:
            allowed = {"arm", "reward"} if layout == "litellm" else set()
            odd = next((name for name in columns if name not in allowed), None)
            if odd is not None:
                raise ValueError(
                    f"--layout {layout} knows its columns: --{odd} is for files of another layout"
                )
            trace = LAYOUTS[layout](path, **columns)
        else:
            trace = Trace.load(path, **columns)
    if wanted:
        if layout in LAYOUTS or path.is_dir() or path.suffix == ".npz":
            raise ValueError(f"--features is for one file of CSV, JSON lines or Parquet, got {path}")
        trace = described(trace, path, columns, wanted)
    say(path, trace.notes)
    return trace


def _no_keys(path: Path, args: argparse.Namespace) -> None:
    """Refuse keys of arrays for a file of columns: nothing would come of them."""
    for name, usual, instead in (("rewards", "rewards", "reward"), ("contexts", "contexts", "context"),
                                 ("costs", None, "cost"), ("arms", None, "arm")):  # fmt: skip
        if path.suffix != ".npz" and getattr(args, name, None) not in (None, usual):
            raise ValueError(f"--{name} is a key of an .npz file: columns of {path} are named by --{instead}")


def _for_a_log(path: Path, args: argparse.Namespace) -> None:
    """Refuse what is done to the scores of all arms alone."""
    if getattr(args, "components", None) is not None:
        raise ValueError(
            f"--components is for the scores of all arms; contexts of a log are reduced by --features "
            f"'e_*=embedding:16', got {path}"
        )
    if getattr(args, "scale", 1.0) != 1.0:
        raise ValueError(f"--scale is for the scores of all arms: rewards of the log {path} stay as they are")


def say(path: Path, notes: Iterable[str]) -> None:
    """Tell on stderr what there is to say of a file, a line each."""
    for note in notes:
        print(f"banditroute: {path.name}: {note}", file=sys.stderr)


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
