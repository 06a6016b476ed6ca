"""How a palette is decoded in the graph."""
