#!/bin/bash
# A million crystals, shared out among a hundred tasks:
#
#     sbatch examples/slurm_generate.sh perov-5-compact
#
# Submit it again as it is after a time limit or a failure: what is complete is passed over, the rest goes on where it
# was. Then: dpcdvae evaluate shards --reference ...
#
#SBATCH --job-name=generate
#SBATCH --array=1-100
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=12:00:00
#SBATCH --requeue
set -euo pipefail
model=${1:?give a model}
shards=100  # as in --array; not SLURM_ARRAY_TASK_COUNT, which is smaller where some tasks alone are submitted again
out=${OUT:-shards}/$SLURM_ARRAY_TASK_ID.extxyz
if [ -e "$out.manifest.json" ]; then  # it is written last
    echo "$out is complete"
    exit
fi
dpcdvae generate "$model" -n "${N:-1000000}" --seed "${SEED:-0}" --batch-size "${BATCH:-256}" \
    --shard "$SLURM_ARRAY_TASK_ID/$shards" --out "$out"
