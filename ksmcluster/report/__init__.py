"""What a person reads: reports, tables, progress."""
