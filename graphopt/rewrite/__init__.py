"""Local rewriting: rules say what matches, one driver changes the graph."""
