"""What a package holds: palettes, dense tensors, interface, every byte."""
