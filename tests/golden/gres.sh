#!/bin/bash
#SBATCH --job-name=hpcxrf
#SBATCH --comment=hpcxrf:cac18b641e46471f
#SBATCH --output=logs/job-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR1@360
#SBATCH --nodes=2
#SBATCH --ntasks=6
#SBATCH --ntasks-per-node=3
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:a100:3
#SBATCH --mem=5000M
#SBATCH --time=02:00:00

umask 077
ulimit -c 0
exec /usr/bin/python3 -m hpcxrf.cluster.job /project/run
