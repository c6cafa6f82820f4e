"""Work spread over processes or machines, with joblib; what comes back does not depend on what computed it."""

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any, TypeVar

__all__ = ["needed", "spread"]

Answer = TypeVar("Answer")


def needed(module: str, extra: str) -> Any:
    """Return a module that is not for everyone, or say which extra brings it.

    Examples
    --------
    >>> needed("json", "tune").loads("1")
    1
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"needs {module}: pip install 'banditroute[{extra}]'") from error


def spread(
    work: Callable[..., Answer], calls: Iterable[Sequence[Any]], *, jobs: int = 1, backend: str = "loky"
) -> list[Answer]:
    """Return ``work(*call)`` of each call, in their order.

    Parameters
    ----------
    work : callable
        Goes to other processes: no lambda.
    calls : iterable of sequences
        Arguments of each call.
    jobs : int
        Processes; 1 stays in this one, -1 takes all cores.
    backend : str
        Of joblib: "loky" are processes here, "ray" a Ray cluster, "dask" that of the open client.

    Examples
    --------
    >>> spread(max, [(1, 2), (4, 3)])
    [2, 4]
    """
    if jobs == 1:
        return [work(*call) for call in calls]
    joblib = needed("joblib", "tune")
    if backend == "ray":
        needed("ray", "ray")
        import_module("ray.util.joblib").register_ray()
    with joblib.parallel_config(backend=backend, n_jobs=jobs):
        return list(joblib.Parallel()(joblib.delayed(work)(*call) for call in calls))
