"""The results of runs, in memory and as files: summary.json, Parquet tables, config.toml.

Imports what `cluster` returns, `ksmcluster.config` and, to print a result, `ksmcluster.report`. Writes only
into the directory that a user named, and replaces only an earlier output there.
"""
