"""Calls that coreai-torch lacks or gets wrong, in terms of others that it gets right."""
