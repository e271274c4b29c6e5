#!/bin/bash
# Training on the GPUs of one machine:
#
#     sbatch examples/slurm_train.sh mp_20 runs/mp_20
#
# It stops ten minutes before the time limit; submit it again as it is, and it goes on after its
# last whole epoch.
#
#SBATCH --job-name=train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
set -euo pipefail
dataset=${1:?give a data set}
out=${2:?give the folder of the run}
if [ -e "$out/run.json" ]; then
    start=(--resume)
else
    start=("$dataset" --preset "${PRESET:-compact}")
fi
# One task for each device: Lightning takes its ranks from SLURM.
srun dpcdvae train "${start[@]}" --out "$out" --set train.accelerator=gpu --set train.devices=4 \
    --set train.strategy=ddp --set train.max_minutes="${MINUTES:-1430}"
