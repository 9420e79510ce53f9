import sys

from datasets import Dataset
from shared_task import is_sum, puzzles
from trl import GRPOConfig, GRPOTrainer


def rewards(completions, numbers, **unused):
    return [is_sum(*pair) for pair in zip(completions, numbers, strict=True)]


settings = GRPOConfig(
    output_dir="runs/trl",
    use_cpu=True,
    bf16=False,
    per_device_train_batch_size=256,
    num_generations=16,
    max_completion_length=320,
    beta=0.0,
    learning_rate=2e-3,
    max_steps=12,
    save_strategy="no",
    report_to="none",
)
GRPOTrainer(
    model=sys.argv[1],
    reward_funcs=rewards,
    args=settings,
    train_dataset=Dataset.from_list(puzzles()),
).train()
