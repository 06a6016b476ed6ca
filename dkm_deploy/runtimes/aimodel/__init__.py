"""Core AI assets: open one, and import Apple's packages in silence."""
