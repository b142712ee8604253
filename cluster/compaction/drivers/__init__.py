"""Drivers whose pages can move, and one whose pages never do."""
