"""A context on its way in: checked, and with its constant where the policy adds one."""

from banditroute._core.kernels import inlined, view, whole
from banditroute._core.kernels.layout import (
    BAD_CONTEXT,
    BAD_SHAPE,
    H_CALM,
    H_CONSTANT,
    H_DIM,
    H_LEVEL,
    H_MAX2,
    H_PAD,
    H_WORK,
)
from banditroute._core.kernels.tiles import dot


@inlined
def checked(s, x):
    """s: buffer, x: (d,) -> squared norm of a context that may be used, its constant included, or a code."""
    if x.size + whole(s, H_CONSTANT) != whole(s, H_DIM):
        return float(BAD_SHAPE)
    norm2 = dot(x, x)
    if not norm2 <= s[H_MAX2]:  # also NaN and infinity
        return float(BAD_CONTEXT)
    return norm2 + s[H_CONSTANT]


@inlined
def fill(s, x, z):
    """s: buffer, x: (d,) -> z: (D,), a context as the arms see it: with its constant, if it has one."""
    for j in range(x.size):
        z[j] = x[j]
    if s[H_CONSTANT] > 0.0:
        z[x.size] = 1.0


@inlined
def load(s, x):
    """s: buffer, x: (d,) -> as `checked`, and copies x into the padded scratch context."""
    norm2 = checked(s, x)
    if norm2 >= 0.0:
        fill(s, x, view(s, whole(s, H_WORK), whole(s, H_PAD)))
    return norm2


@inlined
def explored(s, z, out):
    """s: buffer, z: (D,) -> out: (D,), the context whose width makes the bonus: its slopes count less, see `rescale`."""
    share, o = 1.0 - s[H_CALM], whole(s, H_LEVEL)
    for j in range(z.size):
        out[j] = z[j] if s[o + j] != 0.0 else share * z[j]
