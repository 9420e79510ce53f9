#!/bin/bash
# A run on @NODES@ machines of a Slurm cluster, with @RANKS@ ranks each: sbatch job.sh
# Slurm stops the job before its time is over, or for a more important one. The run then ends its
# step, saves a checkpoint, and the job queues itself again; the same lines go on with the run.
# With GPUs: @GPUS@ of a machine, one for each of its ranks. @if GPUS@
# Ran: the shell's part, with programs in the place of srun and scontrol. Not run: on a cluster.
#SBATCH --job-name=aha-@NAME@
#SBATCH --nodes=@NODES@
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=@RANKS@
#SBATCH --gpus-per-node=@GPUS@ @if GPUS@
#SBATCH --time=@TIME@
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=@NAME@-%j.log
# Two minutes before the end, to this script (B:) alone.
#SBATCH --signal=B:TERM@120

cd "@FOLDER@" || exit 2
export OMP_NUM_THREADS=1
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
stopped=
work=
trap 'stopped=1; [ -z "$work" ] || kill -TERM "$work"' TERM

srun --kill-on-bad-exit=1 .venv/bin/torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node @RANKS@ --max-restarts 3 \
    --rdzv-backend c10d --rdzv-endpoint "$first:29500" \
    --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
    -m aha train @RECIPE@ \
    --model.device cuda \ @if GPUS@
    --name @NAME@ --resume auto &
work=$!
[ -z "$stopped" ] || kill -TERM "$work"
wait "$work"
code=$?
if [ -n "$stopped" ]; then
    wait "$work" # the signal has ended the first wait
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
