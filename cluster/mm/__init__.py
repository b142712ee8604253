"""The memory of one node: processes and their page tables, frames, swap, page faults and system calls.

Imports `arrays`, `spec` and `wire` (messages and commands). Changes the state of its own node only; it asks
other nodes by messages.
"""
