"""What travels between the coordinator and the nodes: commands, their answers, and messages.

Each command is declared in `commands`, together with its answer; each kind of message in `messages`.
`cluster/machine/node.py` has one table of handlers for either. May import `cluster.spec` and
`cluster.arrays`; changes nothing but an outbox.
"""
