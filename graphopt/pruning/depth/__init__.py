"""Depth: residual blocks are found, scored by how little they change, and dropped."""
