"""What is true of few pages or frames, in tables of these alone: page tables have no column for it.

Imports `arrays`. A table without rows costs nothing.
"""
