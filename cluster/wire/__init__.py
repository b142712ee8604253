"""What travels between nodes and their coordinator."""
