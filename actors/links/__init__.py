"""What node actors and the coordinator send each other without Ray: commands on sockets, and large mail.

Imports `cluster.wire`; changes nothing but its own connections and memory.
"""
