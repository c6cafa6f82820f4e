"""The backend against llama.cpp's own server, on a model that the test builds; needs xllamacpp and gguf."""

import threading

import numpy as np
import pytest

from banditroute import LinUCB, Router, Static
from banditroute.servers import LlamaCppAdapters

gguf = pytest.importorskip("gguf")
xllamacpp = pytest.importorskip("xllamacpp")
pytest.importorskip("httpx")

WIDTH, LAYERS, VOCABULARY, INNER, HEADS = 64, 2, 300, 96, 2
NAMES = [f"a{k}" for k in range(6)]


def write_base(path, rng):
    """A llama of 64 numbers and 2 layers with random weights, and bytes as its tokens."""
    file = gguf.GGUFWriter(path, "llama")
    file.add_context_length(256)
    file.add_embedding_length(WIDTH)
    file.add_block_count(LAYERS)
    file.add_feed_forward_length(INNER)
    file.add_head_count(HEADS)
    file.add_head_count_kv(HEADS)
    file.add_layer_norm_rms_eps(1e-5)
    file.add_rope_dimension_count(WIDTH // HEADS)
    file.add_vocab_size(VOCABULARY)
    file.add_file_type(0)
    tokens = [b"<unk>", b"<s>", b"</s>", *(f"<0x{i:02X}>".encode() for i in range(256))]
    kinds = [2, 3, 3, *[6] * 256]
    for i in range(VOCABULARY - len(tokens)):
        tokens.append(bytes([97 + i % 26, 97 + i // 26]))
        kinds.append(1)
    file.add_tokenizer_model("llama")
    file.add_token_list(tokens)
    file.add_token_scores([0.0] * VOCABULARY)
    file.add_token_types(kinds)
    file.add_bos_token_id(1)
    file.add_eos_token_id(2)
    file.add_unk_token_id(0)

    def weights(*shape):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)

    file.add_tensor("token_embd.weight", weights(VOCABULARY, WIDTH))
    file.add_tensor("output.weight", weights(VOCABULARY, WIDTH))
    file.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            file.add_tensor(f"blk.{layer}.{name}.weight", np.ones(WIDTH, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            file.add_tensor(f"blk.{layer}.{name}.weight", weights(WIDTH, WIDTH))
        for name in ("ffn_gate", "ffn_up"):
            file.add_tensor(f"blk.{layer}.{name}.weight", weights(INNER, WIDTH))
        file.add_tensor(f"blk.{layer}.ffn_down.weight", weights(WIDTH, INNER))
    close(file)


def write_adapter(path, rng, rank=4):
    file = gguf.GGUFWriter(path, "llama")
    file.add_type("adapter")
    file.add_string("adapter.type", "lora")
    file.add_float32("adapter.lora.alpha", 2.0 * rank)
    for layer in range(LAYERS):
        for name, (out, into) in {"attn_q": (WIDTH, WIDTH), "ffn_down": (WIDTH, INNER)}.items():
            for part, shape in {"lora_a": (rank, into), "lora_b": (out, rank)}.items():
                values = (0.5 * rng.standard_normal(shape)).astype(np.float32)
                file.add_tensor(f"blk.{layer}.{name}.weight.{part}", values)
    close(file)


def close(file):
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("llama"), np.random.default_rng(0)
    write_base(str(folder / "base.gguf"), rng)
    params = xllamacpp.CommonParams()
    params.model.path = str(folder / "base.gguf")
    params.n_ctx, params.n_parallel, params.warmup, params.port = 256, 1, False, 0
    adapters = []
    for name in NAMES:
        write_adapter(str(folder / f"{name}.gguf"), rng)
        adapters.append(xllamacpp.CommonAdapterLoraInfo(str(folder / f"{name}.gguf"), 1.0))
    params.lora_adapters = adapters
    server = xllamacpp.Server(params)
    yield server.listening_address
    del server


@pytest.fixture
def backend(url):
    with LlamaCppAdapters(url, NAMES, timeout_s=20.0) as made:
        yield made


def said(backend, body):
    """The text of four tokens without any chance in it."""
    answer = backend.ask(
        "POST",
        "/completion",
        {"prompt": "hello", "n_predict": 4, "temperature": 0, "cache_prompt": False, **body},
    )
    assert answer.status == 200, answer.text
    return answer.data["content"]


def test_every_adapter_is_found_and_speaks_for_itself(backend):
    assert backend.observe() == dict.fromkeys(NAMES, "gpu")
    assert all(backend.ensure(name) for name in NAMES)
    texts = {name: said(backend, {"lora": backend.field(name)}) for name in (*NAMES, None)}
    assert len(set(texts.values())) >= 5  # random weights: a few may agree
    backend.choose(None)
    assert said(backend, {}) == texts[None]
    backend.choose("a3")
    assert said(backend, {}) == texts["a3"]
    assert said(backend, {"lora": backend.field("a1")}) == texts["a1"]  # a request's own field goes first


def test_success_for_an_id_that_it_does_not_have_is_what_the_server_says(backend):
    answer = backend.ask("POST", "/lora-adapters", [{"id": 99, "scale": 1.0}])
    assert answer.status == 200 and answer.data == {"success": True}  # why names are looked up
    missing = LlamaCppAdapters(backend.url, [*NAMES, "zz"], timeout_s=20.0)
    assert not missing.ensure("zz") and missing.observe()["zz"] == "disk"
    missing.close()


def test_a_router_in_front_of_it_learns_which_adapter_says_what_is_wanted(backend):
    # Reward: does the adapter say what a1 says? 120 requests from two threads, every one served.
    wanted = said(backend, {"lora": backend.field("a1")})
    arms = [*NAMES]
    router = Router(LinUCB(arms, 1, rng=0), Static(arms), 0.0, backend=backend, maintenance="background")
    lock, served = threading.Lock(), []

    def work():
        for _ in range(60):
            decision = router.select([1.0])
            reward = float(said(backend, {"lora": backend.field(decision.arm)}) == wanted)
            router.update(decision.id, reward)
            with lock:
                served.append((decision.arm, reward))

    with router:
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        router.maintain()
        assert set(router.resident) == set(NAMES) and router.stats()["load_failures"] == 0
    assert len(served) == 120 and np.mean([reward for _, reward in served[60:]]) > 0.8
