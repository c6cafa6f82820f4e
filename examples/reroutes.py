"""An arm dies on the way: its requests go elsewhere at once, it is taken out, and tried again when it may be back."""

import numpy as np

from banditroute import LinUCB, Router
from banditroute.terms import ArmHealth


def main() -> tuple[int, int]:
    """Serve 1,000 requests while the best arm is gone from 300 to 600; returns requests served and failed calls."""
    rng, now, served, failed = np.random.default_rng(0), 0.0, 0, 0
    health = ArmHealth(limits=(1, 2), cooldown_s=50.0)
    quality = {"small": 0.5, "medium": 0.7, "large": 0.9}
    router = Router(LinUCB(quality, 1, rng=0), terms=[health], clock=lambda: now)
    for now in map(float, range(1000)):
        decision, tried = router.select([1.0]), []
        while decision.arm == "large" and 300 <= now < 600:  # the call fails
            failed += 1
            health.report("large", served=False)
            tried.append("large")
            decision = health.reroute(decision, [1.0], without=tried)
        health.report(decision.arm, served=True)
        router.update(decision.id, float(rng.random() < quality[decision.arm]))
        served += 1
    back = router.stats()["arms"]["large"]["learned"]
    print(
        f"{served} requests served, {failed} failed calls; the arm is {health.state('large')}, {back} answers from it"
    )
    return served, failed


if __name__ == "__main__":
    main()
