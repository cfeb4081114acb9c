#!/usr/bin/env bash
# A run that is a PBS job itself, so that nothing runs on a login node:
#
#     qsub -v JOB=jobs/oslo.toml,PATH deploy/pbs/driver.sh
#
# PBS sends SIGTERM only seconds before it kills. The run is therefore stopped in order five minutes
# before its time ends, and leaves with 143; a chained job resumes it:
#
#     qsub -W depend=afternotok:<first> -v JOB=jobs/oslo.toml,PATH deploy/pbs/driver.sh
#
#PBS -N popdask
#PBS -l select=1:ncpus=2:mem=8gb
#PBS -l walltime=12:00:00
#PBS -j oe
set -eu
cd "$PBS_O_WORKDIR"
exec timeout --preserve-status --signal=TERM --kill-after=60s "${STOP_AFTER:-715m}" \
    popdask run "$JOB" --cluster "${CLUSTER:-deploy/pbs/cluster.toml}"
