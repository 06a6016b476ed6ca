"""Callbacks for trainers of other packages; importing one needs its package, this does not."""
