"""Files of traces: which format, how they come to be whole, and one error that names them."""

import gzip
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np

from banditroute.logs import archive, parquet, text
from banditroute.logs.builder import Builder, Gathered
from banditroute.logs.fields import Columns

__all__ = [
    "SUFFIXES", "check_propensities", "gather", "guarded", "kind_of", "load", "save", "titles", "write",
]  # fmt: skip


T = TypeVar("T")


class _Format(NamedTuple):
    save: Callable[[Columns, IO[bytes]], None]
    read: Callable[..., Builder] | None


_FORMATS = {
    ".npz": _Format(archive.save_npz, None),
    ".csv": _Format(text.save_csv, text.read_csv),
    ".jsonl": _Format(text.save_jsonl, text.read_jsonl),
    ".parquet": _Format(parquet.save_parquet, parquet.read_parquet),
}
SUFFIXES = tuple(_FORMATS)
_DAMAGE = (
    ValueError, TypeError, OverflowError, EOFError, MemoryError, zipfile.BadZipFile, NotImplementedError,
    struct.error, UnicodeError, gzip.BadGzipFile, zlib.error,
)  # fmt: skip


def save(trace: Columns, path: Path) -> Path:
    """Write a trace in the format of the suffix, whole or not at all, for its owner alone where it holds contexts.

    Raises
    ------
    ValueError
        The suffix names no format; a propensity is no probability above 0. No file is changed then.

    Examples
    --------
    >>> save(None, Path("log.txt"))
    Traceback (most recent call last):
    ValueError: path must end in .npz, .csv, .jsonl or .parquet, got 'log.txt'
    """
    writer = _format(path.suffix, path).save
    propensities = getattr(trace, "propensities", None)
    if propensities is not None:
        check_propensities(propensities)
    write(path, lambda file: writer(trace, file), private=getattr(trace, "contexts", None) is not None)
    return path


def check_propensities(propensities: Any, *, known: bool = False) -> None:
    """Refuse what is no probability above 0; NaN, not known, is fine unless all must be `known`.

    Examples
    --------
    >>> check_propensities(np.array([0.5, 1.5]))
    Traceback (most recent call last):
    ValueError: propensities must be in (0, 1] to be written, got 1.5 in row 1
    """
    odd = np.flatnonzero(~((propensities > 0.0) & (propensities <= 1.0)) & (known | ~np.isnan(propensities)))
    if odd.size:
        at = int(odd[0])
        raise ValueError(f"propensities must be in (0, 1] to be written, got {propensities[at]} in row {at}")


def write(path: Path, work: Callable[[IO[bytes]], object], *, private: bool) -> None:
    """Write a file beside its place and put it there whole; a link stays, and the mode of a file that is there."""
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
    try:
        with open(handle, "wb") as file:
            if target.exists():
                os.chmod(temporary, target.stat().st_mode & 0o777)
            work(file)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(path: Path, wanted: Mapping[str, Any] | None = None, *, comment: str | None = None) -> Gathered:
    """Read the arguments of a trace in the format of the suffix.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file; what is wrong with it, with its name.

    Examples
    --------
    >>> load(Path("log.txt"))
    Traceback (most recent call last):
    ValueError: path must end in .npz, .csv, .jsonl or .parquet, got 'log.txt'
    """
    named = {field: given for field, given in (wanted or {}).items() if given is not None}
    if path.suffix == ".npz" and named:
        raise ValueError(
            f"{path} has the columns of a trace already: {min(named)}= is for CSV, JSON lines and Parquet"
        )
    if path.suffix == ".npz":
        return guarded(path, archive.read_npz)
    return gather(path, named, comment=comment, finish=lambda builder: builder.gathered())


def gather(
    path: Path,
    wanted: Mapping[str, str | Sequence[str] | None],
    *,
    finish: Callable[[Builder], T],
    also: Mapping[str, Any] | None = None,
    strict: bool = True,
    comment: str | None = None,
) -> T:
    """Read columns of a file and return what `finish` makes of them; any error names the file."""
    kind = kind_of(path)
    reader = _format(kind, path).read
    if reader is None:
        raise ValueError(f"{path} must be .csv, .jsonl or .parquet to be read by its columns")
    options: dict[str, Any] = {"comment": comment} if kind == ".csv" else {}
    return guarded(
        path, lambda file: finish(reader(file, wanted=wanted, also=also, strict=strict, **options))
    )


def titles(path: Path) -> list[str]:
    """Return the titles of a file; of JSON lines the keys of the first."""
    kind = kind_of(path)
    if kind == ".parquet":
        found: list[str] = guarded(path, parquet.titles_of)
    else:
        found = guarded(path, lambda file: text.titles_of(file, kind))
    return found


def guarded(path: Path, read: Callable[[Any], T]) -> T:
    """Return what `read` makes of an open file; an error in it names the file."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with path.open("rb") as file:
            if path.suffix != ".gz":
                return read(file)
            with gzip.open(file) as inner:
                return read(inner)
    except _DAMAGE as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def kind_of(path: Path) -> str:
    """Return the suffix that says the format; text may be packed by gzip, ``.csv.gz``.

    Examples
    --------
    >>> kind_of(Path("log.parquet")), kind_of(Path("log.csv.gz"))
    ('.parquet', '.csv')
    """
    inner = Path(path.stem).suffix if path.suffix == ".gz" else ""
    return inner if inner in (".csv", ".jsonl") else path.suffix


def _format(kind: str, path: Path) -> _Format:
    found = _FORMATS.get(kind)
    if found is None:
        raise ValueError(
            f"path must end in .npz, .csv, .jsonl or .parquet, got {path.name!r}{_ELSE.get(kind, '')}"
        )
    return found


# What is often tried instead, and how it is read.
_ELSE = {
    ".tsv": "; Trace.from_frame(pandas.read_csv(path, sep='\\t')) reads it",
    ".json": "; one object a line is .jsonl, and Trace.from_frame(pandas.read_json(path)) reads other shapes",
    ".xlsx": "; Trace.from_frame(pandas.read_excel(path)) reads it",
    ".pkl": "; Trace.from_frame(pandas.read_pickle(path)) reads a frame from whom you trust",
}
