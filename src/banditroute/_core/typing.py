"""Names of types that every room uses."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arrays", "Clock", "Floats", "Header", "Ints", "Mask", "Rng"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Rng = int | np.random.SeedSequence | np.random.Generator | None
Clock = Callable[[], float]

# A state is plain data: a JSON-able header and named arrays.
Header = dict[str, Any]
Arrays = dict[str, NDArray[Any]]
