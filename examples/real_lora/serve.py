"""Serve prompts through real LoRA adapters, each by the one that a Router chooses; learn from their likelihood.

    python train.py FOLDER
    python serve.py FOLDER [REQUESTS]

Sixteen adapters, room for four, and the base model as one more arm that is always there. The reward of an answer is how
much likelier the adapter finds the prompt than the base model does; the wait is what loading and switching took.
"""

import sys
from pathlib import Path

import numpy as np
import peft
import torch
import transformers

from banditroute import LinUCB, Polaris, Router
from banditroute.features import HashedText
from banditroute.servers import PeftBackend

LENGTH = 64  # tokens of a prompt
FEATURES = HashedText(32)


def backend_of(folder: Path, **options: object) -> PeftBackend:
    """Return the model of a folder with its adapters on disk, and the base model under the name "base"."""
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    paths = {path.name: str(path) for path in sorted((folder / "adapters").iterdir())}
    model = transformers.LlamaForCausalLM.from_pretrained(folder / "base")
    # peft makes its model around a first adapter, which stays out of force.
    model = peft.PeftModel.from_pretrained(model, next(iter(paths.values())), adapter_name="first").eval()
    return PeftBackend(model, paths, base="base", **options)


def prompts_of(folder: Path, each: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Return held-out prompts, `each` of every domain: tokens, context vectors with a constant, and the domain."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "base")
    rng, rows, domains = np.random.default_rng(seed), [], []
    for path in sorted((folder / "held_out").glob("*.txt")):
        tokens = tokenizer(path.read_text(encoding="utf-8")).input_ids
        starts = rng.choice(len(tokens) // LENGTH, min(each, len(tokens) // LENGTH), replace=False) * LENGTH
        rows += [tokens[start : start + LENGTH] for start in starts]
        domains += [path.stem] * len(starts)
    contexts = FEATURES.batch(tokenizer.batch_decode(rows))
    return torch.tensor(rows), np.column_stack([contexts, np.ones(len(rows))]), np.array(domains)


@torch.no_grad()
def likelihood(model: torch.nn.Module, prompts: torch.Tensor) -> np.ndarray:
    """Return the mean log-likelihood of each prompt, nats per token."""
    scores = torch.log_softmax(model(input_ids=prompts).logits[:, :-1], dim=-1)
    return scores.gather(2, prompts[:, 1:, None])[..., 0].mean(dim=1).numpy()


def reward(likelihood: np.ndarray, of_base: np.ndarray) -> np.ndarray:
    """Return the reward: one half where the base model does as well, 1 or 0 from .3 nats per token better or worse."""
    return np.clip(0.5 + (likelihood - of_base) / 0.6, 0.0, 1.0)


def main(folder: Path, requests: int = 600) -> None:
    """Serve, and print what was learned and how long requests waited."""
    prompts, contexts, domains = prompts_of(folder, 20)
    backend = backend_of(folder)
    for name in backend.paths:  # what a load takes
        with backend.borrow(name):
            pass
    arms = (*backend.paths, "base")
    router = Router(
        LinUCB(arms, contexts.shape[1], rng=0),
        Polaris(5, pinned=["base"]),
        backend.paging(arms),
        backend=backend,
    )
    rng, said = np.random.default_rng(0), []
    with router:
        for row in rng.integers(len(prompts), size=requests):
            prompt = prompts[[row]]
            decision = router.select(contexts[row])
            with backend.borrow(decision.arm) as borrowed:
                found, wait_s = likelihood(borrowed.model, prompt), borrowed.wait_s
            with backend.borrow("base") as borrowed:
                value = float(reward(found, likelihood(borrowed.model, prompt))[0])
            router.update(decision.id, value)
            said.append((value, decision.arm == domains[row], decision.hit, 1e3 * wait_s))
        late = np.array(said[requests // 2 :]).mean(axis=0)
        print("second half: reward {:.3f}, own adapter {:.0%}, hit rate {:.0%}, wait {:.1f} ms".format(*late))
        print("resident:", ", ".join(router.resident))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
