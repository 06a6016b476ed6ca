"""Attach clustering to a model, train it, freeze it, save it."""
