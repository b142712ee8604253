"""Subcommands of `ksmcluster`, one module each."""
