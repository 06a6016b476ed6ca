"""DKM: differentiable k-means of scalars and of vectors."""
