"""The whole machine."""
