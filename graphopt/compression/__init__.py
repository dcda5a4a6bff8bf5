"""Compression: one way from a model and data to a smaller, faster model that is proven not to do harm."""
