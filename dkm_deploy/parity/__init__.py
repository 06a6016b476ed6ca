"""Does a file compute the same? Figures of every slice of an output, under a model's own noise."""
