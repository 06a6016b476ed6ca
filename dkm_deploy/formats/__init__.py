"""What files hold, read without any runtime."""
