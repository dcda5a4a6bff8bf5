"""Passes, how they are named and found, how they run, and what is reported of a run."""
