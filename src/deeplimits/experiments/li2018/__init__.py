"""Experiments on extended MSA, of Li, Chen, Tai and E (`li2018`)."""
