"""Tables of which a program reads some rows: which ones, and the table again."""
