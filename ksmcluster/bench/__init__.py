"""How fast the simulator is, and how large: always against something that runs at the same time."""
