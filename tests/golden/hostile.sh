#!/bin/bash
#SBATCH --job-name=hpcxrf
#SBATCH --comment=hpcxrf:3fd9b4b586e78aa1
#SBATCH --output=logs/job-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR1@360
#SBATCH --nodes=1
#SBATCH --ntasks=4
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --mem=6000M
#SBATCH --time=02:00:00

umask 077
ulimit -c 0
exec /usr/bin/python3 -m hpcxrf.cluster.job '/project/it'"'"'s $(touch pwned) #SBATCH %j "☢"'
