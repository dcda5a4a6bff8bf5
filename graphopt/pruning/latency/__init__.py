"""Latency as a cost that pruning can minimise: what each operator takes at each size, and what a whole model does.

``alignment`` finds the multiple of channels that an execution provider likes, ``table`` measures operators one by one,
``predictor`` adds them up for any choice of channels, ``measure`` times a pruned model against its original.
"""
