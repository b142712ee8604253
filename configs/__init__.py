"""The scenarios that come with ksmcluster; `ksmcluster simulate tiny` runs configs/tiny.toml."""
