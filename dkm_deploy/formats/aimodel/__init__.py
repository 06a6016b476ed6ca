"""Core AI assets: open and parse one, and import Apple's packages in silence."""
