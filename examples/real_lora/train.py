"""Train a small llama and its LoRA adapters on the texts of this machine, and keep them as peft does.

    python train.py FOLDER

A tokenizer of 1,024 byte pairs, a base model of 430,000 parameters that has seen every domain, and adapters of rank 8
on all seven projections: one for each domain, one for all code and one for the Romance languages. About two minutes on
one core. Needs torch, transformers and peft.
"""

import sys
import time
from pathlib import Path

import numpy as np
import peft
import torch
import transformers
from texts import CODE, gather
from tokenizers import ByteLevelBPETokenizer

WIDTH, BATCH = 96, 16  # tokens of a window, windows of a step
BASE_STEPS, ADAPTER_STEPS, RANK = 260, 50, 8
TOGETHER = {"code": tuple(CODE), "romance": ("es", "fr", "it")}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def tokenizer_of(texts: list[str]) -> transformers.PreTrainedTokenizerFast:
    """Return byte pairs learned from a like share of every text."""
    inner = ByteLevelBPETokenizer()
    inner.train_from_iterator(
        [text[:60_000] for text in texts], 1024, special_tokens=["<s>", "</s>"], show_progress=False
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner._tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def fit(model: torch.nn.Module, texts: list[torch.Tensor], steps: int, rate: float, seed: int) -> float:
    """Train what may be trained on windows of the texts, each as likely; returns the mean loss of the last 20 steps."""
    rng = np.random.default_rng(seed)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    losses = []
    model.train()
    for _ in range(steps):
        rows = []
        for k in rng.integers(len(texts), size=BATCH):
            start = rng.integers(len(texts[k]) - WIDTH)
            rows.append(texts[k][start : start + WIDTH])
        tokens = torch.stack(rows)
        loss = model(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return float(np.mean(losses[-20:]))


def main(folder: Path) -> None:
    """Write tokenizer and base model to FOLDER/base, adapters to FOLDER/adapters, held-out texts to FOLDER/held_out."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    begin = time.process_time()
    domains = gather()
    tokenizer = tokenizer_of([learn for learn, _ in domains.values()])
    tokens = {d: torch.tensor(tokenizer(learn).input_ids) for d, (learn, _) in domains.items()}
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=96, intermediate_size=256, num_hidden_layers=3, num_attention_heads=3,
        num_key_value_heads=3, max_position_embeddings=256, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        tie_word_embeddings=True,
    )  # fmt: skip
    base = transformers.LlamaForCausalLM(config)
    loss = fit(base, list(tokens.values()), BASE_STEPS, 5e-3, seed=0)
    base.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    print(
        f"base: {base.num_parameters():,d} parameters, loss {loss:.2f}, {time.process_time() - begin:.0f} s of CPU"
    )
    together = {
        name: kinds for name, own in TOGETHER.items() if len(kinds := [d for d in own if d in domains]) > 1
    }
    for k, (name, own) in enumerate({**{d: [d] for d in domains}, **together}.items()):
        torch.manual_seed(1 + k)
        model = transformers.LlamaForCausalLM.from_pretrained(folder / "base")
        lora = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS, task_type="CAUSAL_LM")
        adapted = peft.get_peft_model(model, lora)
        loss = fit(adapted, [tokens[d] for d in own], ADAPTER_STEPS, 1e-2, seed=1 + k)
        adapted.save_pretrained(folder / "adapters" / name)
        print(f"{name}: loss {loss:.2f}, {time.process_time() - begin:.0f} s of CPU", flush=True)
    (folder / "held_out").mkdir(exist_ok=True)
    for domain, (_, judge) in domains.items():
        (folder / "held_out" / f"{domain}.txt").write_text(judge, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
