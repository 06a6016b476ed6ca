"""Core AI: Apple's own runtime for ``.aimodel`` assets, an extra."""
