"""The results of runs, in memory and as files: summary.json, Parquet tables, config.toml.

Imports what `cluster` returns, `ksmcluster.config` and, to print a result, `ksmcluster.report`. Writes only
to the directory that the user named, and replaces only an earlier output there.
"""
