"""Hard assignment, uniform levels and 8-bit grids."""
