#!/bin/sh
#SBATCH --nodes 2 --ntasks-per-node 1 --signal TERM@120 --requeue --open-mode append
# sbatch scripts/slurm/train.sh NAME FLAGS-OF-TRAIN...: a run that goes on wherever and as often as SLURM starts it again
case $(squeue --noheader --jobs "$SLURM_JOB_ID" --format %l) in
[12]:00)
    echo "error: a time limit of two minutes is over when its signal comes: ask for more with --time." >&2
    exit 2
    ;;
esac
name=$1
shift
if [ -e "runs/$name/results.json" ]; then exit 0; fi # by a node that SLURM had given up
if [ -e "runs/$name/config.json" ]; then set -- --resume "$@"; fi
srun python main.py train --name "$name" "$@"
code=$?
if [ $code -eq 143 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $code
