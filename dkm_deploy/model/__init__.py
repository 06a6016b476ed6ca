"""A model with palettes: its inputs, outputs, checkpoint, and how it is named and run."""
