#!/bin/bash

#SBATCH -J hpcxrf
#SBATCH -n 1
#SBATCH --cpus-per-task=8
#SBATCH --mem=1000M
#SBATCH --time=02:00:00
#SBATCH --comment=hpcxrf:cac18b641e46471f:worker
#SBATCH --gres=gpu:a100:1
#SBATCH --open-mode=append
#SBATCH --no-requeue
umask 077
ulimit -c 0
/usr/bin/python3 -m hpcxrf.cluster.job.worker_main of-the-run-directory --name worker-0 --nthreads 8 --memory-limit 0.98GiB --run /project/run
