"""EleutherAI's lm-eval reads an exported folder. Opt-in: `pip install lm-eval` here."""

import pytest
import torch

from aha.export.formats import export
from aha.model.weights import load_model

from ..tiny import TOKENIZER, tiny_folder

lm_eval = pytest.importorskip("lm_eval", reason="no lm-eval: pip install lm-eval")


@torch.no_grad()
def test_its_log_likelihoods_are_ours(tmp_path):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    source = tiny_folder(tmp_path / "tiny")
    folder = export(str(source), tmp_path / "out", "hf", "float32")
    theirs = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1)
    # The newline after <think> is of the completion: lm-eval counts white space at the end of a
    # prompt there, wherever it was.
    prompt, completion = "numbers 3 7 25 target 82\n<think>", "\n3+7=10\n</think>"
    request = Instance("loglikelihood", {}, (prompt, completion), 0)
    ((total, _),) = theirs.loglikelihood([request], disable_tqdm=True)
    tokens = TOKENIZER.encode(prompt) + TOKENIZER.encode(completion)
    logits_BT = load_model(source).policy(torch.tensor([tokens]))
    own = torch.log_softmax(logits_BT[0, :-1].double(), -1)
    first = len(TOKENIZER.encode(prompt)) - 1
    expected = sum(own[place, tokens[place + 1]] for place in range(first, len(tokens) - 1))
    assert total == pytest.approx(float(expected), rel=1e-4)
