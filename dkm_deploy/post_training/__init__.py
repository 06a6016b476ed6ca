"""Palettes after training, without a loop; and what is mended afterwards."""
