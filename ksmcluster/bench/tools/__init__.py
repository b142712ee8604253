"""Tools of the benchmarks: clocks, memory of processes, reference programs, Ray alone, tables.

Imports `actors`, `cluster` and `ksmcluster.report`, but no benchmark. Starts and ends its own processes and
changes nothing else.
"""
