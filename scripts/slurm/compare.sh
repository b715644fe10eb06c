#!/bin/sh
#SBATCH --array 1-3 --ntasks 1 --signal TERM@120 --requeue --open-mode append
# sbatch scripts/slurm/compare.sh FLAGS-OF-COMPARE...: a study by as many tasks as there are nodes for; one writes its table
case $(squeue --noheader --jobs "$SLURM_JOB_ID" --format %l) in
[12]:00)
    echo "error: a time limit of two minutes is over when its signal comes: ask for more with --time." >&2
    exit 2
    ;;
esac
srun python main.py compare "$@"
code=$?
if [ $code -eq 143 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $code
