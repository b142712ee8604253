"""Arrays and trees: packed words, columns, sorted tables, a red-black tree.

Tools that know nothing of ksmd. May import: numpy, no other package of `cluster`. Functions return new
arrays; only the methods of `SortedTable` and `RbTree` change anything, and only their own object.

- `words`: names of array types, and the int64 words that name frames, pages and processes.
- `columns`: choose, sort and search rows of columns.
- `sorted_table`: columns sorted by digest.
- `rbtree`: the kernel's red-black tree, shape for shape.
"""
