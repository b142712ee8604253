"""Results of compaction and of moves between nodes: tables, parts of summary.json and of the report."""
