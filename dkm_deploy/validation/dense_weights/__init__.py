"""The weights that have no palette: those of a file against the reference's."""
