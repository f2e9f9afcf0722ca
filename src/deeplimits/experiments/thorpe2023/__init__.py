"""Experiments on the variational limit of training of Thorpe and van Gennip
(`thorpe2023`).

No experiment of the paper is known: problems, sizes and numbers are ours.
"""
