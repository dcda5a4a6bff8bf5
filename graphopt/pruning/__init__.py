"""Pruning: which channels matter, how much goes from where, and how what is left makes up for it.

The way in is :func:`graphopt.prune`; each step is usable alone.
"""
