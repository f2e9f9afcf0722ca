"""The experiments of Cohen, Cont, Rossier and Xu, *Scaling properties of deep residual
networks* (`cohen2021`), and what we add to them.

A module a question. The hyper-parameters of the published runs are not known: those of
the tanh networks are of the example in the public code, the depths of its grids. The
presets called `paper` are the sizes of the archived runs.
"""
