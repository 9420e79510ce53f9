"""vLLM as an engine, on the GPU of the trainer: it sleeps while the policy trains.

    LLM -> sleep -> [wake weights -> push all -> reset prefix cache] -> [wake kv cache -> generate
    -> sleep] ...          `load` is the first bracket, `generate` the second

Out of order, most of this fails in silence: weights that were dropped in sleep are garbage, a cache
of prefixes is that of the old policy. So every version is tried on a few prompts before what it
wrote is handed out, and the trainer weighs each token (algo.correction).

The calls are those of vLLM 0.29 to 0.32 (of 0.32.0, October 2026), read in its documentation and
sources: **this has not been run on a GPU yet**, only against a stand-in that enforces the order.

Shapes: T tokens, V vocabulary.
"""

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from aha.core.config import RolloutSection
from aha.core.errors import ConfigError, MissingExtra, ModelError
from aha.core.records import Completion, Prompt
from aha.machine.device import empty_cache
from aha.model.lora import merged_weights
from aha.model.policy import Policy
from aha.model.tokenizer import Tokenizer
from aha.rollout.engine import Sampling
from aha.rollout.native import make_groups
from aha.rollout.slots import Row

# Level 2 would save the copy in the machine's memory, and make every rollout without a push before
# it (evaluations, resampling) one of garbage.
SLEEP = 1
PROMPT_ROOM = 2_048  # tokens of a prompt for which the cache is laid out
CANARY = 4  # prompts of a look at a new version
CANARY_TOKENS = 32  # of each of its completions
MAX_GAP = 0.1  # nats a token: bf16 stays below .02, another policy is beyond 1


def import_vllm() -> ModuleType:
    # Read when vllm is imported: in a process of its own, no weights could be handed over.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    try:
        import vllm
    except ImportError as error:
        raise MissingExtra("vllm", "vllm") from error
    return vllm


class VllmEngine:
    """Implements `Engine`. `folder` holds config.json and the weights that training began with.

    The tokens of a seed are vLLM's, not those that the native engine draws with it, and may differ
    with what else is in the batch. Entropies are not told.
    """

    def __init__(self, policy: Policy, tokenizer: Tokenizer, folder: Path, rollout: RolloutSection):
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{folder} holds an adapter, which vLLM cannot begin with",
                "a folder with all weights",
                f"aha export {folder} --out FOLDER, then --model.path FOLDER",
            )
        self.tokenizer, self.vllm = tokenizer, import_vllm()
        self.device = policy.device
        positions = policy.config.max_position_embeddings
        self.room = min(positions, rollout.max_new_tokens + PROMPT_ROOM)
        self.llm = self.vllm.LLM(
            model=str(folder),
            skip_tokenizer_init=True,  # tokens in, tokens out
            generation_config="vllm",  # not the model's own top-k and penalties
            dtype="bfloat16" if rollout.dtype == "auto" else rollout.dtype,
            logprobs_mode="processed_logprobs",  # after the temperature (trap T15)
            enable_sleep_mode=True,
            gpu_memory_utilization=rollout.memory_share,
            max_model_len=self.room,
            max_num_seqs=rollout.max_rows,
        )
        self.llm.sleep(level=SLEEP)
        self.weights_awake = self.tried = False
        self.load(policy, 0)

    def load(self, policy: Policy, version: int) -> None:
        if not self.weights_awake:
            self.wake("weights")
            self.weights_awake = True

        def push(model: Any) -> list[str]:
            """Names of what was not filled, where the model tells."""
            filled = model.load_weights(merged_weights(policy))
            return [] if filled is None else sorted({*dict(model.named_parameters())} - {*filled})

        missing = [name for names in self.llm.apply_model(push) for name in names]
        if missing:
            raise ModelError(
                f"vLLM's model has {len(missing)} weights that ours lacks, such as {missing[0]}",
                "a model of which all weights can be handed over",
                "--rollout.engine native",
            )
        if self.llm.reset_prefix_cache() is False:
            raise ConfigError(
                "vLLM kept its cache of prefixes, which is the old policy's",
                "a cache that can be cleared",
                "--rollout.engine native",
            )
        # The policy itself, not a copy: the canary reads it before the next update.
        self.policy, self.version, self.tried = policy, version, False

    def wake(self, part: str) -> None:
        """vLLM takes memory beside torch's allocator, which keeps what the training has left."""
        empty_cache(self.device)
        self.llm.wake_up(tags=[part])

    def release(self) -> None:
        """Nothing to do: what wrote is asleep."""

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> list[list[Completion]]:
        groups = make_groups(prompts, sampling, self.room)
        if not groups:
            return []
        probes = [] if self.tried else groups[:CANARY]
        short = Sampling(min(CANARY_TOKENS, sampling.max_new_tokens), 1, 0.0)
        asked = [(row, sampling) for group in groups for row in group]
        asked += [(group[0], short) for group in probes]
        found = self.write(asked)
        greedy = [found.pop() for _ in probes]
        if probes:
            drawn = [found[place * sampling.group_size] for place in range(len(probes))]
            self.compare(greedy, drawn, sampling.temperature or 1.0)
        G = sampling.group_size
        return [found[first : first + G] for first in range(0, len(found), G)]

    def write(self, asked: list[tuple[Row, Sampling]]) -> list[Completion]:
        """All rows in one call; awake for it alone."""
        if not self.weights_awake:
            self.wake("weights")
        self.wake("kv_cache")
        try:
            outputs = self.llm.generate(
                [{"prompt_token_ids": list(row.prompt.tokens)} for row, _ in asked],
                sampling_params=[self.params(row, sampling) for row, sampling in asked],
                use_tqdm=False,
            )
        finally:
            self.llm.sleep(level=SLEEP)
            self.weights_awake = False
        return [self.completed(row, out) for (row, _), out in zip(asked, outputs, strict=True)]

    def params(self, row: Row, sampling: Sampling) -> Any:
        """Nothing but the temperature shapes the distribution (trap T16)."""
        return self.vllm.SamplingParams(
            n=1,
            seed=row.seed,
            temperature=sampling.temperature,
            top_p=1.0,
            top_k=0,
            min_p=0.0,
            max_tokens=sampling.max_new_tokens,
            logprobs=0,  # of the token that was drawn, and of no other
            ignore_eos=True,  # ours are the stops: the tokenizer's, and no more
            stop_token_ids=list(self.tokenizer.stop_ids),
            detokenize=False,
        )

    def completed(self, row: Row, output: Any) -> Completion:
        one = output.outputs[0]
        tokens, stops = tuple(one.token_ids), self.tokenizer.stop_ids
        ended = bool(tokens) and tokens[-1] in stops
        if one.finish_reason not in ("stop", "length") or ended != (one.finish_reason == "stop"):
            last = tokens[-1] if tokens else None
            raise ConfigError(
                f"vLLM ended a completion with {one.finish_reason!r} after the token {last}",
                "'stop' at a stop token, or 'length'",
                "--rollout.engine native",
            )
        return Completion(
            prompt=row.prompt,
            tokens=tokens,
            logprobs=tuple(
                at[token].logprob for token, at in zip(tokens, one.logprobs, strict=True)
            ),
            text=self.tokenizer.decode(tokens),
            finish=one.finish_reason,
            version=self.version,
        )

    # -- the canary --------------------------------------------------------------------------

    def compare(
        self, greedy: list[Completion], drawn: list[Completion], temperature: float
    ) -> None:
        """Refuse a version whose log-probs or greedy tokens are not our own model's."""
        gaps, regrets = [], []
        for some, at in ((greedy, 1.0), (drawn, temperature)):
            for one in some:
                own_T, best_T = self.read(one, at)
                gaps.append((torch.tensor(one.logprobs[:CANARY_TOKENS]) - own_T).abs())
                if some is greedy:
                    regrets.append(best_T - own_T)
        gap, regret = (float(torch.cat(some).mean()) for some in (gaps, regrets))
        if not max(gap, regret) <= MAX_GAP:  # NaN as well
            raise ConfigError(
                f"vLLM and our own model are {gap:.2g} nats a token apart at version "
                f"{self.version}, and its greedy tokens {regret:.2g} from our best",
                f"at most {MAX_GAP}",
                "--rollout.engine native, or the vllm that this was written for (0.29 to 0.32)",
            )
        self.tried = True

    @torch.no_grad()
    def read(self, one: Completion, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
        """(log-probs [T] of the first tokens by our own model, the largest there were [T])."""
        start, device = len(one.prompt.tokens), self.policy.device
        tokens = (one.prompt.tokens + one.tokens)[: start + CANARY_TOKENS]
        tokens_BT = torch.tensor([tokens], device=device)
        logits_BTV = self.policy.logits(tokens_BT, start, temperature=temperature)
        logprobs_TV = torch.log_softmax(logits_BTV[0].float(), -1).cpu()
        own_T = logprobs_TV.gather(1, tokens_BT[0, start:, None].cpu()).squeeze(1)
        return own_T, logprobs_TV.amax(1)
