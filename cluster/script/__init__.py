"""Replay scripts and records."""
