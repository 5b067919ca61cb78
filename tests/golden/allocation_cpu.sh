#!/bin/bash
#SBATCH --job-name=hpcxrf
#SBATCH --comment=hpcxrf:cac18b641e46471f
#SBATCH --output=logs/job-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR1@360
#SBATCH --nodes=1
#SBATCH --ntasks=16
#SBATCH --ntasks-per-node=16
#SBATCH --cpus-per-task=2
#SBATCH --mem=98000M
#SBATCH --time=12:00:00

umask 077
ulimit -c 0
exec /usr/bin/python3 -m hpcxrf.cluster.job /project/run
