"""Our GGUF files in llama.cpp itself: the same tokens of a text, the same greedy completion.

For those who ask for it, as no extra of ours brings llama.cpp:

    pip install xllamacpp
    AHA_REAL_MODEL=FOLDER pytest -n 0 -m slow tests/model/test_gguf_in_llama_cpp.py

AHA_REAL_MODEL is a model folder, such as one that `aha import SmolLM2.gguf` has made; without it,
random models are exported alone.
"""

import json
import os
import warnings
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import torch

from aha.core.records import Problem, Prompt
from aha.model.gguf import LLAMA3_PATTERN, save_gguf
from aha.model.model_warning import ModelWarning
from aha.model.tokenizer import QWEN2_PATTERN, Tokenizer
from aha.model.transformer import Transformer
from aha.model.weights import load_model
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine

from .test_gguf import exported

pytestmark = pytest.mark.slow
TEXTS = [
    "Reach 82 with 3, 7 and 25: 25*3+7 = 82, and don't forget it.\n<think>\nIt's 1234567!",
    "  two spaces,\ttab\n\n\nthree lines \n and an end  ",
    "Grüße, 12.5 € für 3 Äpfel; 你好，世界 - Привет! 🙂👍🏽 x²≠y₃",
    "def f(x):\n    return x**2 # it's HTTPServer2Go, I'LL say they've 0x1F",
]
NEW = 24  # tokens of a completion


class LlamaCpp:
    """llama.cpp's server with one model, in this process; it listens on this machine alone."""

    def __init__(self, path: Path, context: int):
        xllamacpp = pytest.importorskip("xllamacpp")
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = context
        params.n_parallel = 1
        params.warmup = False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        # Keys and values in f16, the default, would round what we do not.
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        self.server = xllamacpp.Server(params)

    def ask(self, path: str, **body: object) -> dict:
        request = Request(
            f"{self.server.listening_address}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=1_200) as answer:
            return json.load(answer)

    def tokens(self, text: str) -> list[int]:
        return self.ask("/tokenize", content=text, add_special=False, parse_special=True)["tokens"]

    def greedy(self, tokens: list[int], count: int) -> list[int]:
        settings = {"temperature": 0.0, "top_k": 1, "cache_prompt": False, "return_tokens": True}
        return self.ask("/completion", prompt=tokens, n_predict=count, **settings)["tokens"]


def check(path: Path, policy: Transformer, tokenizer: Tokenizer) -> None:
    """Tokens of all texts, and what follows each of them."""
    theirs = LlamaCpp(path, min(policy.config.max_position_embeddings, 512))
    engine = NativeEngine(policy, tokenizer, "float32")
    for text in TEXTS:
        ours = tokenizer.encode(text)
        assert theirs.tokens(text) == ours
        prompt = Prompt(Problem(text, "none", {}), text, tuple(ours))
        (completion,) = engine.generate([prompt], Sampling(NEW, 1, 0.0))[0]
        # llama.cpp leaves the stop token out.
        written = [token for token in completion.tokens if token not in tokenizer.stop_ids]
        assert theirs.greedy(ours, NEW)[: len(written)] == written


@pytest.mark.parametrize(
    ("kind", "split"),
    [("qwen2", QWEN2_PATTERN), ("qwen3", QWEN2_PATTERN), ("llama", LLAMA3_PATTERN)],
)
def test_llama_cpp_reads_and_continues_as_we_do(tmp_path, kind, split):
    policy, tokenizer = exported(tmp_path, kind, split)
    check(tmp_path / "model.gguf", policy, tokenizer)


def test_llama_cpp_reads_and_continues_a_real_model_as_we_do(tmp_path):
    folder = os.environ.get("AHA_REAL_MODEL")
    if not folder:
        pytest.skip("AHA_REAL_MODEL names no model folder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelWarning)
        model = load_model(Path(folder))
    save_gguf(tmp_path / "real.gguf", model.policy, model.tokenizer, torch.float32)
    check(tmp_path / "real.gguf", model.policy, model.tokenizer)
