#!/bin/sh
#SBATCH --nodes 2 --ntasks-per-node 1 --signal TERM@120 --requeue --open-mode append
# sbatch scripts/slurm/train.sh NAME FLAGS-OF-TRAIN...: a run in runs/NAME (no --out) that goes on as often as SLURM
# starts it again, with as many nodes or others
# In an array, one task's SLURM_JOB_ID is that of all tasks.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
case $(squeue --noheader --jobs "$job" --format %l) in
[12]:00)
    echo "error: a time limit of two minutes is over when its signal comes: ask for more with --time." >&2
    exit 2
    ;;
esac
name=$1
shift
if [ -n "$SLURM_RESTART_COUNT" ] && [ -e "runs/$name/results.json" ]; then exit 0; fi # by a node that SLURM had given up
if [ -e "runs/$name/config.json" ]; then set -- --resume "$@"; fi
srun --wait 15 python main.py train --name "$name" "$@"
code=$?
if [ $code -eq 143 ]; then scontrol requeue "$job"; fi
exit $code
