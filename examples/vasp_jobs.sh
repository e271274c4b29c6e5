#!/bin/bash
# Runs VASP in every job folder that `dpcdvae relax --write-jobs` wrote:
#
#     export POTENTIALS=/path/to/potpaw_PBE VASP="srun vasp_std"
#     sbatch --ntasks=16 --time=24:00:00 examples/vasp_jobs.sh jobs
#
# The folder of potentials has to be of the set that POTCAR.functional names. What is complete is passed over, so submit
# it again as it is after a time limit. Then: dpcdvae relax --read-jobs jobs --out relaxed.extxyz
#
#SBATCH --job-name=vasp-jobs
set -euo pipefail
jobs=${1:?give the folder of jobs}
potentials=${POTENTIALS:?set POTENTIALS to the folder with one folder for each potential}
failed=0
shopt -s nullglob
folders=("$jobs"/[0-9]*/)
if [ "${#folders[@]}" = 0 ]; then
    echo "$jobs: no folders of jobs in it" >&2
    exit 1
fi
for job in "${folders[@]}"; do
    if [ -e "$job/vasprun.xml" ] && tail -n 1 "$job/vasprun.xml" | grep -q "</modeling>"; then
        continue
    fi
    : > "$job/POTCAR.part"
    complete=1
    while read -r name || [ -n "$name" ]; do  # the last line ends without a newline
        if ! cat "$potentials/$name/POTCAR" >> "$job/POTCAR.part" 2> /dev/null; then
            echo "$job: no potential $name in $potentials" >&2
            complete=0
        fi
    done < "$job/POTCAR.spec"
    if [ "$complete" = 0 ]; then
        rm "$job/POTCAR.part"
        failed=1
        continue
    fi
    mv "$job/POTCAR.part" "$job/POTCAR"
    (cd "$job" && ${VASP:-vasp_std} > vasp.out 2>&1 < /dev/null) || { echo "$job: VASP failed" >&2; failed=1; }
done
exit "$failed"
