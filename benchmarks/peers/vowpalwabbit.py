"""Vowpal Wabbit's contextual bandit, SquareCB, one example per arm with arm x context interactions.

The fastest public way found: the examples of the arms are built once, the shared example is emptied and
refilled in place, and only the line with the cost is new (3-6x faster than sending text, with identical
predictions). A label cannot be taken off an example, and one returned to the pool alone crashes the process,
hence the new line.
"""

import random
import tempfile
from pathlib import Path

import numpy as np
from vowpalwabbit import LabelType, Workspace
from vowpalwabbit.pyvw import Example

DISTRIBUTION = "vowpalwabbit"
SETTING = "cb_explore_adf squarecb, defaults (its regressor keeps no matrix)"
OPTIONS = "--cb_explore_adf --squarecb --interactions sa --quiet --random_seed "
LABEL = LabelType.CONTEXTUAL_BANDIT


class Peer:
    """A workspace, the plain example of every arm, and the shared example."""

    def __init__(self, arms: int, dim: int, alpha: float, seed: int):
        self.shape = (arms, dim)
        self.seed = seed
        self._attach(Workspace(OPTIONS + str(seed + 1)))

    def _attach(self, workspace: Workspace) -> None:
        arms, dim = self.shape
        self.workspace = workspace
        self.sampler = random.Random(self.seed)
        self.probability = 1.0
        self.arms = range(arms)
        self.features = [str(feature) for feature in range(dim)]
        self.plain = [workspace.parse(f"|a a{arm}")[0] for arm in self.arms]
        self.shared = Example(workspace, {"s": [("0", 1.0)]}, LABEL)
        self.shared.set_label_string("shared")
        self.shared.setup_example()

    def __deepcopy__(self, memo: dict) -> "Peer":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.vw"
            self.workspace.save(str(path))
            twin = object.__new__(Peer)
            twin.shape, twin.seed = self.shape, self.seed
            twin._attach(Workspace(f"--quiet --initial_regressor {path}"))
        return twin

    def _fill(self, x: np.ndarray) -> Example:
        shared = self.shared
        shared.unsetup_example()
        shared.erase_namespace(ord("s"))
        shared.push_feature_dict(self.workspace, {"s": [*zip(self.features, x.tolist(), strict=True)]})
        shared.setup_example()
        return shared

    def select(self, x: np.ndarray) -> int:
        """Index of an arm drawn from the predicted probabilities."""
        probabilities = self.workspace.predict([self._fill(x), *self.plain])
        arm = self.sampler.choices(self.arms, probabilities)[0]
        self.probability = probabilities[arm]
        return arm

    def update(self, arm: int, x: np.ndarray, reward: float) -> None:
        """One observation, with the propensity of the last `select` (1 when a history is replayed)."""
        line = Example(self.workspace, f"0:{-reward}:{self.probability} |a a{arm}", LABEL)
        self.workspace.learn([self._fill(x), *self.plain[:arm], line, *self.plain[arm + 1 :]])
