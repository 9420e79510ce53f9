from shared_task import is_sum, puzzles

import aha

sizes = {"prompts": 16, "group_size": 16, "max_new_tokens": 320}
aha.train("demo", reward=is_sum, data=puzzles(), steps=12, rollout=sizes)
