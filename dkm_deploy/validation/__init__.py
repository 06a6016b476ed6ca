"""Weigh converted files: are these the weights, do they compute the same, how big are they."""
