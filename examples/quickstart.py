"""Route requests to five adapters with room for two, and learn from rewards that come back late and out of order."""

import numpy as np

from banditroute import LinUCB, PagingModel, Polar, Router

ADAPTERS = ["maths", "code", "law", "medicine", "chat"]


def main() -> None:
    """Serve 5,000 requests and print what was learned."""
    rng = np.random.default_rng(0)
    skill = rng.normal(size=(len(ADAPTERS), 8))  # how good each adapter is at what: unknown to the router

    router = Router(
        LinUCB(ADAPTERS, dim=9, rng=0),
        residency=Polar(capacity=2, epoch=250),
        paging=PagingModel.profile("qwen2.5-7b/disk", rank=16),
    )

    waiting = []  # answers on their way, as (decision id, reward)
    rewards = []
    for _ in range(5_000):
        embedding = rng.normal(size=8) / np.sqrt(8)
        context = np.append(embedding, 1.0)  # a constant gives every adapter an intercept

        decision = router.select(context)

        quality = 1 / (1 + np.exp(-2 * skill[ADAPTERS.index(decision.arm)] @ embedding))
        waiting.append((decision.id, float(rng.random() < quality)))
        rewards.append(quality)

        if len(waiting) == 20:  # feedback comes in a burst, in any order
            for i in rng.permutation(20):
                router.update(*waiting[i])
            waiting.clear()

    stats = router.stats()
    print(f"mean reward: {np.mean(rewards[:500]):.3f} at first, {np.mean(rewards[-500:]):.3f} at last")
    print(f"resident now: {', '.join(router.resident)}; {stats['page_ins']} page-ins")
    print(f"hit rate {stats['hit_rate']:.1%}, {stats['learned']} rewards learned, {stats['pending']} pending")


if __name__ == "__main__":
    main()
