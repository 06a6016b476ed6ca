"""The samples, as a user runs them."""
