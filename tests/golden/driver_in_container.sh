#!/bin/bash
#SBATCH --job-name=hpcxrf
#SBATCH --comment=hpcxrf:cac18b641e46471f
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
exec apptainer exec --bind=/project,/scratch --bind=/etc/slurm,/run/munge,/usr/bin/srun,/usr/bin/scontrol,/usr/bin/squeue,/usr/lib/slurm,/etc/passwd '/project/it'"'"'s an image.sif' python -m hpcxrf.cluster.job /project/run
