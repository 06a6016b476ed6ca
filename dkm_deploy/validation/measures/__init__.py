"""What is measured of models and files: errors, agreement, size, cost."""
