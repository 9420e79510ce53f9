#!/usr/bin/env bash
# Trains with veRL @VERSION@ and the settings of overrides.txt; further ones may follow, as in
#   bash train.sh trainer.n_gpus_per_node=4
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
HERE=$PWD

have=$(python3 -c 'from importlib.metadata import version; print(version("verl"))' 2>/dev/null || true)
if [ "$have" != "@VERSION@" ]; then
  echo "verl ${have:-is not installed}; wanted verl @VERSION@: others ignore or rename settings;" \
    "fix: pip install 'verl[vllm,fsdp]==@VERSION@'" >&2
  exit 2
fi
case $HERE in
  *[\'\\\$]*)
    echo "$HERE: wanted a path without a quote, \\ or \$, for veRL; fix: move the folder" >&2
    exit 2
    ;;
esac

overrides=()
while IFS= read -r line; do
  case $line in '' | '#'*) continue ;; esac
  overrides+=("${line//\$HERE/$HERE}")
done < overrides.txt
export VERL_FILE_LOGGER_PATH="$HERE/metrics.jsonl"
exec python3 -m verl.trainer.main_ppo "${overrides[@]}" "$@"
