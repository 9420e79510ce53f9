"""The parts of a model card that show what to write to the model, and how to run it.

The example is the first problem of the run's own test after training, with the model's answer to
it, right or wrong: nothing is chosen.
"""

import re
import shlex
from pathlib import Path

from aha.store.guarded_files import Row
from aha.store.run_folder import Run, read_rows

HF_CODE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

name = {name!r}  # this folder, or its name on the hub
prompt = {prompt!r}
model = AutoModelForCausalLM.from_pretrained(name)
tokenizer = AutoTokenizer.from_pretrained(name)
inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
tokens = model.generate(
    inputs.input_ids, attention_mask=inputs.attention_mask, max_new_tokens={tokens},
    do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
)
print(tokenizer.decode(tokens[0]))"""
ADAPTER_CODE = (
    HF_CODE.replace(
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer",
    )
    .replace("= AutoModelForCausalLM", "= AutoPeftModelForCausalLM")
    .replace(
        "AutoTokenizer.from_pretrained(name)",
        'AutoTokenizer.from_pretrained(model.peft_config["default"].base_model_name_or_path)',
    )
)
GGUF_CODE = """\
llama-cli -m model.gguf -no-cnv -e -p {shell_prompt} -n {tokens} --temp 1 --top-k 0 --top-p 1

printf 'FROM ./model.gguf\\nTEMPLATE {{{{ .Prompt }}}}\\n' > Modelfile
ollama create {ollama_name} -f Modelfile && ollama run {ollama_name}"""
GGUF_NOTE = (
    "Neither llama.cpp nor Ollama was at hand when this card's template was written: the file was "
    "checked with `transformers`, which reads it back with the same logits. The model takes the "
    "prompt as it is, without a chat template."
)
SHOWN_CHARS = 2_000  # of a prompt and of an answer
MAX_TOKENS = 1_024  # where no limit is known


def example_of(run: Path) -> Row | None:
    """The first completion of the run's last test; None where the run has none that can be read."""
    for name in ("after", "before"):
        for row in read_rows(Run(run).completions / f"{name}.jsonl"):
            prompt, text = row.get("prompt"), row.get("completion")
            if isinstance(prompt, str) and isinstance(text, str) and len(prompt) <= SHOWN_CHARS:
                return row | {"test": name}
            break
    return None


def example_section(example: Row) -> str:
    """What a prompt looks like, and what the model wrote after it."""
    verdict = "right" if example.get("correct") is True else "wrong"
    when = {"after": "after training", "before": "before training"}[example["test"]]
    answer = example["completion"]
    cut = "" if len(answer) <= SHOWN_CHARS else " (the beginning)"
    return (
        "## What a prompt looks like\n"
        f"The first problem of the held-out test {when}, as the model reads it:\n\n"
        f"{fenced(example['prompt'])}\n\n"
        f"and what it wrote{cut}, which is {verdict}:\n\n{fenced(answer[:SHOWN_CHARS])}"
    )


def fenced(text: str) -> str:
    """A block of code around any text: its fence is longer than any within."""
    ticks = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, ticks + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"


def use_section(form: str, name: str, example: Row | None, limit: int | None) -> str:
    """How to run the model: code that works when it is pasted, with the example's prompt.

    `name` is the folder or the name on the hub, `limit` the run's limit of tokens.
    """
    prompt = example["prompt"] if example else "..."
    escaped = prompt.replace("\\", "\\\\").replace("\n", "\\n")
    values = {
        "name": name,
        "prompt": prompt,
        "tokens": limit or MAX_TOKENS,
        "shell_prompt": shlex.quote(escaped),
        "ollama_name": re.sub(r"[^a-z0-9._-]+", "-", Path(name).name.lower()).strip("-._") or "aha",
    }
    if form == "gguf":
        return f"## Use\n```sh\n{GGUF_CODE.format(**values)}\n```\n\n{GGUF_NOTE}"
    code = HF_CODE if form == "hf" else ADAPTER_CODE
    return f"## Use\n```python\n{code.format(**values)}\n```"
