#!/bin/sh
#SBATCH --array 1-3 --ntasks 1 --signal TERM@120 --requeue --open-mode append
# sbatch scripts/slurm/compare.sh FLAGS-OF-COMPARE...: a study by as many tasks as there are nodes for; one writes its table
# In an array, one task's SLURM_JOB_ID is that of all tasks.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
case $(squeue --noheader --jobs "$job" --format %l) in
[12]:00)
    echo "error: a time limit of two minutes is over when its signal comes: ask for more with --time." >&2
    exit 2
    ;;
esac
srun python main.py compare "$@"
code=$?
if [ $code -eq 143 ]; then scontrol requeue "$job"; fi
exit $code
