#!/bin/bash
# Relaxation of crystals with a machine-learned potential on the cores of one machine:
#
#     sbatch examples/slurm_relax.sh crystals.extxyz relaxed.extxyz
#
# Submit it again as it is after a time limit: finished crystals are kept beside the output.
#
#SBATCH --job-name=relax
#SBATCH --cpus-per-task=16
#SBATCH --mem=32G
#SBATCH --time=12:00:00
set -euo pipefail
crystals=${1:?give a file or folder of crystals}
out=${2:?give a file for the relaxed crystals}
dpcdvae relax "$crystals" --calculator "${CALCULATOR:-chgnet}" --pressure "${PRESSURE:-0}" \
    --workers "${SLURM_CPUS_PER_TASK:-1}" --out "$out"
