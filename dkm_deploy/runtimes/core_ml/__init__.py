"""Core ML, on macOS."""
