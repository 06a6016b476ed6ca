"""Ways to train a palette: what each must offer, and each of them."""
