"""The experiments of Marion, Wu, Sander and Biau, *Implicit regularization of deep
residual networks towards neural ODEs* (`marion2024`), and what we add to them.

A module a figure. The presets called `paper` have the paper's own sizes where there are
such; for the experiments that are ours they are the sizes of the archived runs.
"""
