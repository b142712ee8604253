"""Frames that move."""
