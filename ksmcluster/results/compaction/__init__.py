"""What compaction and moves between nodes have found out: tables, parts of summary.json and of the report."""
