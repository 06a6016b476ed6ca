"""How many small faults in what vouches for files the tests notice."""
