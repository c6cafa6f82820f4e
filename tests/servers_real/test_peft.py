"""The backend of peft against peft: `make servers` runs this, in an environment of its own."""

import time

import numpy as np
import pytest

from banditroute import LinUCB, Polar, Router
from banditroute.servers import PeftBackend
from small_llama import NAMES

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")


pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning"
)  # peft says whom it puts into force after a deletion


@pytest.fixture
def backend(model_folder):
    torch.set_num_threads(1)
    model = transformers.LlamaForCausalLM.from_pretrained(model_folder / "base").eval()
    # peft makes its model around a first adapter; it stays, out of force.
    model = peft.PeftModel.from_pretrained(model, model_folder / NAMES[0], adapter_name="first").eval()
    paths = {name: str(model_folder / name) for name in NAMES}
    return PeftBackend(model, paths, base="base")


def likelihood(model, tokens):
    with torch.no_grad():
        return -float(model(input_ids=tokens, labels=tokens).loss)


def test_adapters_are_loaded_switched_and_deleted(backend, model_folder):
    tokens = torch.arange(3, 60)[None]
    alone = transformers.LlamaForCausalLM.from_pretrained(model_folder / "base").eval()
    plain = likelihood(alone, tokens)
    true = {}
    for name in NAMES[:4]:
        one = peft.PeftModel.from_pretrained(
            transformers.LlamaForCausalLM.from_pretrained(model_folder / "base"), model_folder / name
        ).eval()
        true[name] = likelihood(one, tokens)
    assert len({*true.values(), plain}) == 5
    for name in ("a0", "a1"):
        assert backend.ensure(name)
    for _ in range(2):  # with two resident, two borrowed, and the base between them
        for name in NAMES[:4]:
            with backend.borrow(name) as borrowed:
                assert borrowed.hit == (name in ("a0", "a1"))
                assert likelihood(borrowed.model, tokens) == pytest.approx(true[name], abs=1e-5)
            with backend.borrow("base") as borrowed:
                assert likelihood(borrowed.model, tokens) == pytest.approx(plain, abs=1e-5)
    assert backend.evict("a0") and backend.evict("a1") and not backend.evict("a1")
    assert set(backend.observe().values()) == {"disk", "gpu"} and backend.observe()["base"] == "gpu"
    with backend.borrow("base") as borrowed:
        assert likelihood(borrowed.model, tokens) == pytest.approx(plain, abs=1e-5)
    with pytest.raises(Exception, match="nowhere"):
        PeftBackend(backend.model, {"zz": "/nowhere"}).ensure("zz")
    assert backend.ensure("a2")


def test_waits_that_are_reported_are_those_measured_outside(backend):
    reported, outside = [], []
    rng = np.random.default_rng(0)
    for name in NAMES[:2]:
        backend.ensure(name)
    for name in rng.choice(NAMES, 60):
        start = time.perf_counter()
        with backend.borrow(str(name)) as borrowed:
            outside.append(time.perf_counter() - start)
            reported.append(borrowed.wait_s)
    print(f"\nwaits of 60 requests: reported {sum(reported):.3f} s, measured outside {sum(outside):.3f} s")
    assert sum(reported) == pytest.approx(sum(outside), rel=0.05)
    paging = backend.paging(ms_to_reward=0.001)
    print(
        f"\nload: median {1e3 * np.median([w for w in reported if w > 5e-3]):.1f} ms, "
        f"price of a fault {paging.prices(len(NAMES)).mean():.3f}"
    )


def test_a_router_in_front_of_it_loads_what_earns_most(backend, model_folder):
    """500 requests in four groups, each best served by its own adapter; reward is the log-likelihood of the prompt."""
    rng = np.random.default_rng(1)
    prompts = {}
    for k, name in enumerate(NAMES[:4]):
        with backend.borrow(name) as borrowed:  # what that adapter itself would say
            start = torch.tensor([[3 + k]])
            with torch.no_grad():
                prompts[k] = borrowed.model.generate(
                    start, max_new_tokens=24, do_sample=False, pad_token_id=1
                )
    arms = (*NAMES, "base")
    fixed = {name: [] for name in arms}
    for name in arms:
        with backend.borrow(name) as borrowed:
            fixed[name] = [likelihood(borrowed.model, prompts[k]) for k in range(4)]
    low = min(min(row) for row in fixed.values())
    router = Router(
        LinUCB(arms, 4, rng=0), Polar(5, epoch=50, pinned=["base"]), backend.paging(arms), backend=backend
    )
    rewards, false = [], 0
    weights = np.array([0.5, 0.3, 0.15, 0.05])
    for _ in range(500):
        k = int(rng.choice(4, p=weights))
        decision = router.select(np.eye(4)[k])
        false += decision.hit != (backend.observe()[decision.arm] == "gpu")
        with backend.borrow(decision.arm) as borrowed:
            reward = likelihood(borrowed.model, prompts[k]) / -low
        router.update(decision.id, reward)
        rewards.append((k, reward))
    best_fixed = max(sum(w * r / -low for w, r in zip(weights, row, strict=True)) for row in fixed.values())
    late = [np.mean([r for k, r in rewards[250:] if k == group]) for group in range(4)]
    learned = float(np.dot(weights, late))
    stats = router.stats()
    print(f"\nreward: learned {learned:.4f}, best fixed {best_fixed:.4f}; {stats['loads']} loads, "
          f"hit rate {stats['hit_rate']:.2f}, resident {router.resident}")  # fmt: skip
    assert false == 0 and stats["load_failures"] == 0
    assert learned > best_fixed
    router.close()
