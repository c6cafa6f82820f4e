"""Where everything is in the buffer of a linear policy, and the constants of its kernels.

One float64 buffer ``s`` holds everything a policy derives or counts, so that a call passes one array and the
request. The header (``H_*``) comes first, then blocks at the offsets it names. With D = dim rounded up to 8:

=========== ======== =================================================================================
``theta``   (N, D)   derived: A^-1 (b + ridge prior)
``cov``     (N, L)   derived: A^-1, A = ridge I + S
``gram``    (N, L)   truth: S, the weighted sum of x x', together with ``queue``
``queue``   (8 N, D) truth: the last few sqrt(weight) x of each arm, folded into S eight at a time
``moment``  (N, D)   truth: b, the weighted sum of reward x
``prior``   (N, D)   mean towards which each arm is shrunk
``arm``     (8, N)   truth: count, weight, sum of weighted reward^2; derived: radius, spread, error
``noise``   (R, W)   prefetched randomness, a row per decision
``work``    ...      scratch
=========== ======== =================================================================================

A symmetric matrix is packed as block rows of eight: row i keeps its columns 0 .. 8 (i // 8) + 7, so diagonal tiles
are whole, rows start on 64-byte boundaries and the rank-one write is exactly symmetric. Tiles left of the diagonal
are stored doubled, once for their mirror image: x' P x is then one plain sum over the block. L = D (D + 8) / 2. A
diagonal policy stores L = D numbers instead, and the three functions that touch a matrix branch on it.
"""

# fmt: off
H_ARMS, H_DIM, H_PAD, H_PACK = 0, 1, 2, 3            # N, d, D, L
H_THETA, H_COV, H_GRAM, H_MOMENT, H_PRIOR = 4, 5, 6, 7, 8
H_ARM, H_NOISE, H_WORK = 9, 10, 11                   # offsets of the blocks
H_ROWS, H_WIDTH, H_CURSOR = 12, 13, 14               # noise: rows, numbers per row, next row
H_RIDGE, H_ALPHA, H_MIX, H_SAMPLE = 15, 16, 17, 18   # H_SAMPLE 1: Thompson, the bonus is a normal draw
H_MAX2 = 19                                          # largest squared norm of a context
H_DISCOUNT, H_SPAN, H_BUCKET, H_CLOCK = 20, 21, 22, 23
H_LEARNED, H_REFRESH = 24, 25                        # updates so far; next refresh of the pooled prior
H_POOLED, H_POOL_RIDGE, H_AUTO = 26, 27, 28
H_SIGMA2, H_PROPENSITY, H_EVALUATED = 29, 30, 31
H_AUTO_RIDGE = 32
H_QUEUE = 33                                         # offset: contexts not yet folded into gram
HEADER = 40

A_COUNT, A_WEIGHT, A_SQUARE, A_RADIUS, A_SPREAD, A_ERROR, A_TIGHTEN, A_QUEUED = 0, 1, 2, 3, 4, 5, 6, 7
ARM_SLOTS = 8

# What a kernel answers instead of an arm or of zero; the Python side builds the message.
BAD_SHAPE, BAD_CONTEXT, NO_NOISE, BAD_PRICES, NONE_ELIGIBLE = -1, -2, -3, -4, -5
BAD_ARM, BAD_REWARD, BAD_WEIGHT = -6, -7, -8
# fmt: on

QUEUE = 8  # contexts an arm keeps before they go into gram: one pass over S for eight updates
ROWS = 32  # contexts per block of `predict_rows`
EPSILON = 2.220446049250313e-16
TINY = 1e-40  # contexts with a smaller mean square tell no scale: a ridge in proportion would overflow
LARGEST = 1e30  # rewards and weights beyond it are refused: products of them would overflow
TIGHTEN_DIM = 128  # above it the products of `tighten` would be a pause that a request can feel
REBUILD_ERROR = (
    1e-8  # bound of the accumulated rounding of a width at which an arm is rebuilt from its statistics
)
GROWTH = 1.2  # the pooled prior is refreshed whenever the number of updates grew by this
FIRST_REFRESH = 16.0
