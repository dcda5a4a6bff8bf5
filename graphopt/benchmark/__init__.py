"""Timing models side by side under ONNX Runtime: latency, session creation, memory, size.

The way in is :func:`graphopt.bench`. Nothing is imported here, so that the processes that it starts are up at once.
"""
