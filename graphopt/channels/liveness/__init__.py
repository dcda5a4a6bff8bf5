"""Which channels do nothing, in a model that something else pruned by zeros, and how they go.

``uniform`` finds slices of weights that are one number, ``lanes`` follows lanes that are always one number through the
operators (``rules``: one row an operator), ``dead`` decides which units no result depends on, ``folding`` puts what
they add into biases, and ``masks`` reads the masks of others.
"""
