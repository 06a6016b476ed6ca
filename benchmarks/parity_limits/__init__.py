"""Do right files pass the limits of parity, and do faults miss them?"""
