"""Pictures of results with matplotlib (the extra `plot`).

`style` and `kinds` can be imported without matplotlib; `picture` and the drawing modules need it.
"""
