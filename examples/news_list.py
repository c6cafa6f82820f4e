"""A list of four stories: readers look from the top and stop at what they click; one place of each list is explored."""

import numpy as np

from banditroute import LinUCB, Router
from banditroute.router import cascade

STORIES = [f"story-{i}" for i in range(12)]


def main() -> tuple[float, float]:
    """Show 3,000 lists; returns the share of readers that clicked among the last thousand, and the best possible."""
    rng = np.random.default_rng(5)
    taste = rng.uniform(0.02, 0.4, size=12)  # how likely each is clicked when seen
    router = Router(LinUCB(STORIES, 1, mix=0.2, rng=0))
    clicks = []
    for _ in range(3000):
        shown = router.select([1.0], k=4)
        clicked = next((arm for arm in shown.arms if rng.random() < taste[STORIES.index(arm)]), None)
        router.update(shown.id, cascade(shown, clicked))
        clicks.append(clicked is not None)
    best = 1.0 - float(np.prod(1.0 - np.sort(taste)[-4:]))
    print(router.explain([1.0]).sentence)
    print(f"clicked: {np.mean(clicks[2000:]):.3f} of readers, at best {best:.3f}")
    return float(np.mean(clicks[2000:])), best


if __name__ == "__main__":
    main()
