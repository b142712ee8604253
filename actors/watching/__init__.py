"""Signs of life: of the head of a cluster, of machines, and of Ray's processes. Frozen processes are killed.

Imports Ray, the standard library and `cluster.spec`; changes no result.
"""
