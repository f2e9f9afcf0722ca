"""Run an experiment on a cluster that SLURM manages, with dask-jobqueue.

    pip install "deeplimits[cluster]" dask-jobqueue
    python examples/slurm.py marion2025/histogram --profile paper

All words are those of `deeplimits run`. Run it where jobs may be submitted, in a folder
that the nodes see too: what a piece has trained so far is kept there. Adapt the job to
your machine; `print(cluster.job_script())` shows what is submitted. The scheduler runs
what it is sent, by anybody who reaches it: keep it inside the cluster's own network.
"""

import sys

from dask_jobqueue import SLURMCluster

from deeplimits import cli

JOB = {"cores": 1, "processes": 1, "memory": "4GB", "walltime": "02:00:00"}


def main() -> int:
    with SLURMCluster(**JOB) as cluster:
        cluster.scale(jobs=8)
        address = cluster.scheduler_address
        return cli.main(["run", *sys.argv[1:], "--scheduler", address])


if __name__ == "__main__":
    sys.exit(main())
