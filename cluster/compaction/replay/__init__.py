"""Replaying records of real kernels' page migration, and comparing with them move by move and call by call.

Imports all other packages of `compaction`, and `cluster.script` for the form of differences. Changes nothing
but the memories that it builds itself.
"""
