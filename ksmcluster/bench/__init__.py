"""How fast the simulator is and how much memory it takes, against something that runs at the same time.

Imports everything below but the commands; changes only what it simulates, and this host's ksmd with `--ksmd`.
"""
