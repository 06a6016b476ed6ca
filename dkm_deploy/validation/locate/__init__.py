"""Where a file goes wrong: the first layer that leaves PyTorch's values."""
