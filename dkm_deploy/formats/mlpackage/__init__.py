"""Core ML packages: manifest, ML program, weight files."""
