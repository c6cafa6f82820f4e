"""Where everything is in the buffer of a linear policy, and the constants of its kernels.

One float64 buffer ``s`` holds everything a policy derives or counts, so that a call passes one array and the
request. The header (``H_*``) comes first, then blocks at the offsets it names. With D = dim rounded up to 8 and room
for C >= N arms, so that one more arm moves nothing:

=========== ======== =================================================================================
``theta``   (C, D)   derived: A^-1 (b + ridges prior)
``cov``     (C, L)   derived: A^-1, A = diag(ridges) + S
``gram``    (C, L)   truth: S, the weighted sum of x x', together with ``queue``
``queue``   (8 C, D) truth: the last few sqrt(weight) x of each arm, folded into S eight at a time
``moment``  (C, D)   truth: b, the weighted sum of reward x
``prior``   (C, D)   mean towards which each arm is shrunk
``ridges``  (C, D)   precision of each coefficient of each arm around that mean
``arm``     (8, C)   truth: count, weight, sum of weighted reward^2; derived: radius, spread, error
``level``   (D,)     value of each component that never changed so far, 0 for the others
``noise``   (R, W)   prefetched randomness, a row per decision
``work``    ...      scratch of a call
``job``     ...      what a refresh keeps between its slices
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
H_POOLED, H_POOL_RIDGE, H_AUTO = 26, 27, 28          # H_AUTO: widths of the automatic alpha, 0 for a given one
H_SIGMA2, H_PROPENSITY, H_EVALUATED = 29, 30, 31
H_AUTO_RIDGE = 32
H_QUEUE = 33                                         # offset: contexts not yet folded into gram
H_LEVEL_RIDGE, H_COLD = 34, 35                       # ridge of level components; bonus of what nothing is known of
H_SEEN, H_LOW, H_HIGH = 36, 37, 38                   # whether anything was learned here; smallest, largest reward
H_LEFT = 39                                          # whether an arm left since the pooled prior was fitted
H_RIDGES, H_LEVEL, H_JOB, H_ROOM = 40, 41, 42, 43    # offsets; C
H_PHASE, H_JOB_ARM, H_STAGE, H_ROW = 44, 45, 46, 47  # how far a refresh has come
H_SHIFT, H_LATE, H_APPLIED, H_LATE_ROWS = 48, 49, 50, 51
H_BUDGET, H_MOVE = 52, 53
H_FIRST, H_LATE_AT = 54, 55                          # offsets inside the job that requests need
H_FEW, H_TOP = 56, 57                                # an arm with fewer answers is taken to be worth H_TOP
H_CONSTANT = 58                                      # 1: the last of the d components is a constant 1, added here
H_CALM = 59                                          # how much less than fully slopes count in the width of a bonus
H_SPENT = 60                                         # work that the last reward did for those before it
HEADER = 64

A_COUNT, A_WEIGHT, A_SQUARE, A_RADIUS, A_SPREAD, A_ERROR, A_TIGHTEN, A_QUEUED = 0, 1, 2, 3, 4, 5, 6, 7
ARM_SLOTS = 8

# Phases of a refresh, and the vectors at the start of the block `job`, after SUMS sums: ridges that arms move to, the
# pooled mean, (scratch), ridges of an arm that keeps its own, the variance, over that of the noise, of what nothing is
# known of, and, of each component and over arms, deviations, deviations times the share of them that the data determine,
# those shares and their squares. Between refreshes only the first KEPT matter.
IDLE, SUM, SOLVE, MEASURE, MOVE, MEND = 0, 1, 2, 3, 4, 5
SUMS = 16
TARGET, MEAN, OWN, FIRST, FAR, FAR_FREE, FREE, FREE2, VECTORS = 0, 1, 5, 6, 7, 8, 9, 10, 11
KEPT = 7

# What a kernel answers instead of an arm or of zero; the Python side builds the message.
BAD_SHAPE, BAD_CONTEXT, NO_NOISE, BAD_PRICES, NONE_ELIGIBLE = -1, -2, -3, -4, -5
BAD_ARM, BAD_REWARD, BAD_WEIGHT, AGED = -6, -7, -8, -9  # AGED: a new bucket began, `advance` has to come first
DUE = 1  # learned, and a slice of upkeep is due
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
SEVERE = 1e-6  # such a bound is too much to wait for a slice of upkeep
GROWTH = 1.2  # the pooled prior is refreshed whenever the number of updates grew by this
FIRST_REFRESH = 16.0

# The automatic scales. A standard deviation of all rewards is the unit of FIRST_TAU, FIRST_SLOPE and COLD; FIRST_ALPHA, UNKNOWN and
# HOPE are shares of the range of the rewards and zero: rewards that are all the same have one too.
FIRST_ALPHA = 0.5  # until the first estimate; a very wide one measures the same but would drown the prices
FIRST_TAU = 0.5  # middle of the prior of what the level contributes to the rewards of one arm
FIRST_SLOPE = 0.2  # and of what its slopes do, beside a level; without one they carry it too
LOG_SPREAD = 3.0  # standard deviation of the logarithm of that prior of a variance
BELIEF = 4.0  # squared errors' worth of the belief that all variance of rewards is noise
LEAST = 0.02  # noise is at least this share of the range of the rewards
WIDE = 0.5  # width until something is known, as a share of the range of the rewards
DOUBT = 3.0  # that width in noise scales, at most
MATURE = 10.0  # rewards per coefficient from which on that width falls with the root of their number
RANGE = 4.0  # a range of rewards is at most so many of their standard deviations
UNKNOWN = 0.5  # least standard deviation of rewards while one arm alone has answered
HOPE = 0.5  # how much better than the best reward seen an arm may be that has hardly answered
EVERY = 8.0  # requests per arm after which each has to have answered once; twice after another 16, and so on
COLD = 0.25  # bonus, in standard deviations of the rewards, of a direction of which nothing is known
