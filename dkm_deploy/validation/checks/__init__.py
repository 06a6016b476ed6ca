"""The questions asked of a file. Each gives a status and a reason."""
