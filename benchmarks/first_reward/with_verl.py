import subprocess
import sys

import pandas as pd
from shared_task import is_sum, puzzles


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return is_sum(solution_str, list(extra_info["numbers"]))


def main(model):
    rows = [
        {
            "data_source": "sums",
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "reward_model": {"style": "rule", "ground_truth": ""},
            "extra_info": {"numbers": row["numbers"], "index": index},
        }
        for index, row in enumerate(puzzles())
    ]
    pd.DataFrame(rows[:540]).to_parquet("train.parquet")
    pd.DataFrame(rows[540:]).to_parquet("test.parquet")
    plain = "{% for m in messages %}{{ m.content }}{% endfor %}"
    settings = {
        "algorithm.adv_estimator": "grpo",
        "data.train_files": "train.parquet",
        "data.val_files": "test.parquet",
        "data.train_batch_size": 16,
        "data.max_prompt_length": 64,
        "data.max_response_length": 320,
        "actor_rollout_ref.model.path": model,
        "actor_rollout_ref.model.custom_chat_template": f"'{plain}'",
        "actor_rollout_ref.actor.optim.lr": 2e-3,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 16,
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 16,
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.n": 16,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 16,
        "reward.custom_reward_function.path": __file__,
        "reward.custom_reward_function.name": "compute_score",
        "trainer.n_gpus_per_node": 1,
        "trainer.nnodes": 1,
        "trainer.total_training_steps": 12,
        "trainer.logger": "[console]",
        "trainer.save_freq": -1,
    }
    words = [f"{key}={value}" for key, value in settings.items()]
    subprocess.run([sys.executable, "-m", "verl.trainer.main_ppo", *words], check=True)


if __name__ == "__main__":
    main(sys.argv[1])
