"""Ways to find a palette: pure tensor maths, no modules, no files."""
