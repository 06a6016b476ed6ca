"""From a package to a package: palettes in place of its weights, the program otherwise as it is."""
