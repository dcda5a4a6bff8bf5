"""The command line: one file a command, each a thin layer over the Python function of the same name."""
