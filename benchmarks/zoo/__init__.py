"""What of many architectures goes through, target by target: ``python -m benchmarks.zoo``."""
