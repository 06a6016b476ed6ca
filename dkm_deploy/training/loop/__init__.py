"""A training loop for who has none: steps, epochs, and a run that can be resumed."""
