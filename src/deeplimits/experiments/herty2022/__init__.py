"""Experiments on the particles and the mean field of Herty, Thünen, Trimborn and
Visconti (`herty2022continuous`) and of Herty, Trimborn and Visconti
(`herty2022meanfield`).

No parameter of these papers is known: networks and sizes are ours.
"""
