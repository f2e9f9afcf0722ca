"""Experiments on the idealised problem of Isobe and Okumura (`isobe2024`).

The paper has no numerics as far as is known: networks, laws and sizes are ours.
"""
