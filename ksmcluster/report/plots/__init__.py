"""Pictures of results, by matplotlib: the extra `plot`.

`style` and `kinds` are imported without matplotlib; `picture` and what draws need it.
"""
