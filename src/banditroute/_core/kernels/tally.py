"""The kernel that counts a replica's own evidence beside the shared statistics."""

import math

from banditroute._core.kernels import kernel
from banditroute._core.kernels.tiles import add_outer


@kernel
def credit(gram, moment, sums, x, scratch, reward, weight):
    """gram: (L,), moment: (D,), sums: (3,) count, weight, square; x: (d,), scratch: (D,) -> adds one reward to all."""
    root = math.sqrt(weight)
    for j in range(x.size):
        moment[j] += weight * reward * x[j]
        scratch[j] = root * x[j]
    for j in range(x.size, scratch.size):
        scratch[j] = 0.0
    add_outer(gram, scratch, 1.0)
    sums[0] += 1.0
    sums[1] += weight
    sums[2] += weight * reward * reward
