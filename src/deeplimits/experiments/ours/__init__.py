"""Experiments of chapter 12, of no paper: one problem, trained in several ways.

Data, networks and sizes are ours.
"""
