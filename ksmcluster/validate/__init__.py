"""The simulator held against the KSM of the kernel that runs here."""
