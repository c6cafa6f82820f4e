"""A small llama with random weights and LoRA adapters, made by the libraries that serve them."""

NAMES = tuple(f"a{k}" for k in range(12))
RANK = 8


def make(folder):
    """Write a base model of 4 heads of 32 numbers, its tokenizer, and 12 adapters on all seven projections."""
    import peft
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = _tokenizer(transformers)
    tokenizer.save_pretrained(folder / "base")
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=256, bos_token_id=0, eos_token_id=1,
        pad_token_id=1, tie_word_embeddings=False,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "base")
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    for k, name in enumerate(NAMES):
        base = transformers.LlamaForCausalLM.from_pretrained(folder / "base")
        lora = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets, task_type="CAUSAL_LM")
        adapted = peft.get_peft_model(base, lora)
        torch.manual_seed(1 + k)
        with torch.no_grad():
            for weights in adapted.parameters():
                if weights.requires_grad:
                    weights.normal_(0.0, 0.05)
        adapted.save_pretrained(folder / name)


def _tokenizer(transformers):
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {token: i for i, token in enumerate(["<s>", "</s>", "<unk>", *alphabet])}
    inner = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
