#!/bin/bash
# A run on @NODES@ machines with @RANKS@ ranks each, by torchrun: the same script on each of them.
# Each machine has @GPUS@ GPUs, one for each of its ranks. @if GPUS@
# @FOLDER@ is the clone on a disk that all of them see; @HEAD@ is one of them.
# Ran: read by bash, its command by torchrun's own parser. Not run: on two machines.
set -eu
cd "@FOLDER@"
export OMP_NUM_THREADS=1
exec .venv/bin/torchrun \
    --nnodes @NODES@ --nproc-per-node @RANKS@ --max-restarts 3 \
    --rdzv-backend c10d --rdzv-id @NAME@ --rdzv-endpoint @HEAD@:29500 \
    -m aha train @RECIPE@ \
    --model.device cuda \ @if GPUS@
    --name @NAME@ --resume auto
