"""Passes over the program: those of coremltools, held to change only rounding, and ours."""
