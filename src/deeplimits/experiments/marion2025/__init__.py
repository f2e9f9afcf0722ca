"""The experiments of Marion, Fermanian, Biau and Vert, *Scaling ResNets in the
large-depth regime* (`marion2025`), and what we add to them.

The presets called `paper` have the sizes of the paper's public code where there are
such; for the experiments that are ours they are the sizes of the archived runs.
"""
