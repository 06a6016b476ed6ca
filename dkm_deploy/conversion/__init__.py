"""From a frozen model to a file: one exported program, written whole or not at all."""
