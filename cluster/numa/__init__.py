"""Frames of processes that move: between nodes, and within a node by compaction.

`migrate_frames` moves frames to other nodes and gives them their new names; `relocate_frames` chooses frames
for other nodes; `compact_frames` connects a node to the compactors of its memory. May import `cluster.mm`,
`cluster.ksm`, `cluster.compaction` and what is below them; changes frames, page tables and the trees of a
node through their owners.
"""
