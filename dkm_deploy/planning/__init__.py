"""To a byte budget: what each weight costs in the file and in the outputs, and who gets what."""
