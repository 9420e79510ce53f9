"""vLLM as an engine, on the GPU of the trainer: it sleeps while the policy trains.

    LLM -> sleep -> [wake weights -> push all -> reset prefix cache] -> [wake kv cache -> generate
    -> sleep] ...          `load` is the first bracket, `generate` the second

The order matters, and a wrong order mostly fails without an error: weights that were dropped in
sleep are garbage, and a cache of prefixes has the keys of the old policy. So the first completions
of every version are compared with our own model before any is returned (`check_version`).

Even in the right order vLLM's log-probs differ a little from the trainer's: other kernels, other
rounding. So the recorded log-probs are not exactly those of the policy that is trained, and without
a correction the loss would take that difference for a change of the policy. `aha.algo.correction`
gives each token the weight p_trainer / p_vllm. Example: .50 against .48 is a weight of 1.04.

The calls are those of vLLM 0.29 to 0.32 (of 0.32.0, October 2026), read in its documentation and
sources: **this has not been run on a GPU yet**, only against a stand-in that enforces the order.

Shapes: T tokens, V vocabulary.
"""

import os
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from aha.core.config import RolloutSection
from aha.core.errors import ConfigError, MissingExtra, ModelError
from aha.core.records import Completion, Prompt
from aha.machine.device import compute_dtype, empty_cache
from aha.model.lora import merged_weights
from aha.model.policy import Policy
from aha.model.tokenizer import Tokenizer
from aha.rollout.engine import Sampling
from aha.rollout.slot_engine import make_groups
from aha.rollout.slots import SlotRow

# Level 1 keeps a copy of the weights in the host's memory. Level 2 drops them, so every rollout
# that has no `load` before it (evaluations, resampling) would be generated from garbage.
SLEEP_LEVEL = 1
MAX_PROMPT_TOKENS = 2_048  # for which the cache has space
CHECK_PROMPTS = 4  # of the comparison of a new version with our own model
CHECK_TOKENS = 32  # of each of its completions
MAX_GAP = 0.1  # nats a token: bf16 stays below .02, another policy is above 1


def import_vllm() -> ModuleType:
    """The module. Raises `MissingExtra` without it."""
    # vLLM reads this at import: with an engine in another process no weights could be pushed.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    try:
        import vllm
    except ImportError as error:
        raise MissingExtra("vllm", "vllm") from error
    module: ModuleType = vllm
    return module


class VllmEngine:
    """Implements `Engine`. `folder` holds config.json and the weights that training began with.

    The same seed gives other tokens than in the native engine, and they may depend on what else is
    in the batch. Entropies are not recorded.
    """

    def __init__(self, policy: Policy, tokenizer: Tokenizer, folder: Path, rollout: RolloutSection):
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{folder} holds an adapter, which vLLM cannot begin with",
                "a folder with all weights",
                f"aha export {shlex.quote(str(folder))} --out FOLDER, then --model.path FOLDER",
            )
        self.tokenizer, self.vllm = tokenizer, import_vllm()
        self.device = policy.device
        positions = policy.config.max_position_embeddings
        self.positions = min(positions, rollout.max_new_tokens + MAX_PROMPT_TOKENS)
        self.llm = self.vllm.LLM(
            model=str(folder),
            skip_tokenizer_init=True,  # tokens in, tokens out
            generation_config="vllm",  # not the model's own top-k and penalties
            # vLLM refuses bf16 on GPUs that have none; ours is the same question.
            dtype=str(compute_dtype(rollout.dtype, policy.device)).removeprefix("torch."),
            # After the temperature: vLLM's default records log-probs of the raw logits, which are
            # those of another distribution than the one that is sampled and trained.
            logprobs_mode="processed_logprobs",
            enable_sleep_mode=True,
            gpu_memory_utilization=rollout.memory_share,
            max_model_len=self.positions,
            max_num_seqs=rollout.max_rows,
        )
        self.llm.sleep(level=SLEEP_LEVEL)
        self.weights_awake = self.checked = False
        self.load(policy, 0)

    def load(self, policy: Policy, version: int) -> None:
        if not self.weights_awake:
            self.wake("weights")
            self.weights_awake = True

        def push(model: Any) -> list[str]:
            """The names of parameters that were not filled, where the model reports them."""
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
        # The policy itself, not a copy: the check reads it before the next update.
        self.policy, self.version, self.checked = policy, version, False

    def wake(self, part: str) -> None:
        """Wake a part: "weights" or "kv_cache". vLLM takes its memory from the driver, so what
        torch's allocator keeps from training is given back first."""
        empty_cache(self.device)
        self.llm.wake_up(tags=[part])

    def release(self) -> None:
        """Nothing to do: vLLM is asleep between two rollouts."""

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> list[list[Completion]]:
        if sampling.budget is not None:
            raise ConfigError(
                "a thinking budget with rollout.engine 'vllm'",
                "an engine that can put a token in another's place",
                "--rollout.engine native",
            )
        groups = make_groups(prompts, sampling, self.positions)
        if not groups:
            return []
        G = sampling.group_size
        checked_groups = [] if self.checked else groups[:CHECK_PROMPTS]
        greedy_sampling = Sampling(min(CHECK_TOKENS, sampling.max_new_tokens), 1, 0.0)
        requests = [(row, sampling) for group in groups for row in group]
        requests += [(group[0], greedy_sampling) for group in checked_groups]
        completions = self.generate_rows(requests)
        greedy = [completions.pop() for _ in checked_groups]
        if checked_groups:
            drawn = [completions[index * G] for index in range(len(checked_groups))]
            self.check_version(greedy, drawn, sampling.temperature or 1.0)
        return [completions[first : first + G] for first in range(0, len(completions), G)]

    def generate_rows(self, requests: list[tuple[SlotRow, Sampling]]) -> list[Completion]:
        """All rows in one call of vLLM, which is awake for it alone."""
        if not self.weights_awake:
            self.wake("weights")
        self.wake("kv_cache")
        try:
            outputs = self.llm.generate(
                [{"prompt_token_ids": list(row.prompt.tokens)} for row, _ in requests],
                sampling_params=[self.params(row, sampling) for row, sampling in requests],
                use_tqdm=False,
            )
        finally:
            self.llm.sleep(level=SLEEP_LEVEL)
            self.weights_awake = False
        pairs = zip(requests, outputs, strict=True)
        return [self.completed(row, output) for (row, _), output in pairs]

    def params(self, row: SlotRow, sampling: Sampling) -> Any:
        """The temperature alone shapes the distribution. Top-p, top-k and min-p are switched off
        one by one: a default of vLLM, or of a model's generation_config.json, would cut off tokens,
        and the recorded log-probs would not be those of the policy."""
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

    def completed(self, row: SlotRow, output: Any) -> Completion:
        """The record of a row. Raises `ConfigError` where vLLM ended it for a reason of its own."""
        generated = output.outputs[0]
        tokens, reason = tuple(generated.token_ids), generated.finish_reason
        ended = bool(tokens) and tokens[-1] in self.tokenizer.stop_ids
        if reason not in ("stop", "length") or ended != (reason == "stop"):
            last = tokens[-1] if tokens else None
            raise ConfigError(
                f"vLLM ended a completion with {reason!r} after the token {last}",
                "'stop' at a stop token, or 'length'",
                "--rollout.engine native",
            )
        return Completion(
            prompt=row.prompt,
            tokens=tokens,
            logprobs=tuple(
                by_token[token].logprob
                for token, by_token in zip(tokens, generated.logprobs, strict=True)
            ),
            text=self.tokenizer.decode(tokens),
            finish=reason,
            version=self.version,
        )

    # -- the check of a version --------------------------------------------------------------

    def check_version(
        self, greedy: list[Completion], drawn: list[Completion], temperature: float
    ) -> None:
        """Raise `ConfigError` where vLLM's log-probs, or its greedy tokens, are not those of our
        own model: it then has other weights.

        `gap` compares the log-probs of all these tokens. `regret` is how far below our own best
        token vLLM's greedy one is: a wrong temperature changes the gap alone, old keys change both.
        """
        gaps, regrets = [], []
        for completions, at_temperature in ((greedy, 1.0), (drawn, temperature)):
            for completion in completions:
                own_T, best_T = self.own_logprobs(completion, at_temperature)
                recorded_T = torch.tensor(completion.logprobs[:CHECK_TOKENS])
                gaps.append((recorded_T - own_T).abs())
                if completions is greedy:
                    regrets.append(best_T - own_T)
        gap, regret = (float(torch.cat(values).mean()) for values in (gaps, regrets))
        if not max(gap, regret) <= MAX_GAP:  # so that NaN is an error too
            raise ConfigError(
                f"vLLM and our own model are {gap:.2g} nats a token apart at version "
                f"{self.version}, and its greedy tokens {regret:.2g} from our best",
                f"at most {MAX_GAP}",
                "--rollout.engine native, or the vllm that this was written for (0.29 to 0.32)",
            )
        self.checked = True

    @torch.no_grad()
    def own_logprobs(
        self, completion: Completion, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """By our own model: (log-probs [T] of the completion's first tokens, the largest log-prob
        of any token [T])."""
        start = len(completion.prompt.tokens)
        tokens = (completion.prompt.tokens + completion.tokens)[: start + CHECK_TOKENS]
        tokens_BT = torch.tensor([tokens], device=self.policy.device)
        logits_BTV = self.policy.logits(tokens_BT, start, temperature=temperature)
        logprobs_TV = torch.log_softmax(logits_BTV[0].float(), -1).cpu()
        own_T = logprobs_TV.gather(1, tokens_BT[0, start:, None].cpu()).squeeze(1)
        return own_T, logprobs_TV.amax(1)
