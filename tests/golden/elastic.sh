#!/bin/bash -l
#SBATCH --job-name=hpcxrf
#SBATCH --comment=hpcxrf:cac18b641e46471f
#SBATCH --output=logs/job-%j.log
#SBATCH --open-mode=append
#SBATCH --no-requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR1@660
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=500M
#SBATCH --time=30:00:00
#SBATCH --partition=small
#SBATCH --account=xrf
#SBATCH --constraint='a100|h100'
#SBATCH --qos=high
#SBATCH --reservation=beam

umask 077
ulimit -c 0
module load gcc/12
module load cuda
source /venv/bin/activate
exec python -m hpcxrf.cluster.job /project/run
