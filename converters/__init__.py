"""Converters: one folder a target. Each checks, lowers, writes and reads back."""
