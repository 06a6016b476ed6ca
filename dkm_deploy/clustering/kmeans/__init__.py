"""K-means: exact for scalars, searched for vectors."""
