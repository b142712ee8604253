"""What runs have found out: in memory and as files."""
