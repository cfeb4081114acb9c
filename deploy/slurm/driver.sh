#!/usr/bin/env bash
# A run that is a SLURM job itself, so that nothing runs on a login node:
#
#     sbatch deploy/slurm/driver.sh jobs/oslo.toml [deploy/slurm/cluster.toml]
#
# from a shell in which `popdask` is found. Two minutes before its time ends SLURM tells it; the run
# stops in order, the job goes back into the queue, and the run resumes when it is started again.
# Where a site forbids that, chain jobs; those after the one that finishes are cancelled:
#
#     first=$(sbatch --parsable deploy/slurm/driver.sh jobs/oslo.toml)
#     sbatch --dependency=afternotok:$first --kill-on-invalid-dep=yes deploy/slurm/driver.sh jobs/oslo.toml
#
#SBATCH --job-name=popdask
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=popdask-%j.log
set -u

STOPPED=143                         # popdask's exit code after SIGTERM

popdask run "$1" --cluster "${2:-deploy/slurm/cluster.toml}" &
run=$!
told=
trap 'told=yes; kill -TERM "$run"' TERM
wait "$run"; code=$?
if [ -n "$told" ]; then             # the signal interrupts the first wait
    wait "$run"; code=$?
fi
if [ "$code" -eq "$STOPPED" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
