"""Run an experiment on a Kubernetes cluster, with dask-kubernetes.

    pip install "deeplimits[cluster]" dask-kubernetes
    python examples/kubernetes.py IMAGE marion2025/histogram --profile paper

IMAGE is one that has this checkout, its environment and `deeplimits[cluster]`; the
words behind it are those of `deeplimits run`. The cluster needs the operator of
dask-kubernetes. The scheduler runs what it is sent, by anybody who reaches it: the
service stays inside the cluster, and is reached from here through a forwarded port.
"""

import sys

from dask_kubernetes.operator import KubeCluster

from deeplimits import cli


def main() -> int:
    image, *words = sys.argv[1:]
    with KubeCluster(name="deeplimits", image=image, n_workers=8) as cluster:
        address = cluster.scheduler_address
        return cli.main(["run", *words, "--scheduler", address])


if __name__ == "__main__":
    sys.exit(main())
