"""The main job on real data, from training to a verdict: ``dkm-deploy demo``."""
