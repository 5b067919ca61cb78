#!/bin/bash
#SBATCH --job-name=hpcxrf
#SBATCH --comment=hpcxrf:651e60c2d9002ed9
#SBATCH --output=logs/job-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR1@360
#SBATCH --nodes=2
#SBATCH --ntasks=8
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --mem=130000M
#SBATCH --time=08:00:00
#SBATCH --partition=gpu

umask 077
ulimit -c 0
exec /usr/bin/python3 -m hpcxrf.cluster.job /project/xrf/my-run
