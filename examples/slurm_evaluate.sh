#!/bin/bash
# Evaluation of crystals on the cores of one machine:
#
#     sbatch examples/slurm_evaluate.sh shards mp_20:test numbers.json
#
# Submit it again as it is after a time limit: finished comparisons are kept in $DPCDVAE_HOME.
#
#SBATCH --job-name=evaluate
#SBATCH --cpus-per-task=16
#SBATCH --mem=32G
#SBATCH --time=04:00:00
set -euo pipefail
crystals=${1:?give a file or folder of crystals}
reference=${2:?give a reference, such as mp_20:test}
numbers=${3:?give a file for the numbers}
dpcdvae evaluate "$crystals" --reference "$reference" --workers "${SLURM_CPUS_PER_TASK:-1}" --json "$numbers" --all
