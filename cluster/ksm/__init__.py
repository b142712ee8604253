"""ksmd on one node: visits to pages, the trees, and merging.

- `scan` visits pages and sends what each visit asks of the trees (`visit`) to the home of the content.
- `merge_window` decides a window in the home's trees (`decide`), applies the changes (`trees`), and sends the
  messages (`page_updates`).
- `replace_page` carries these messages out on the node of the page or frame.

Imports `mm`, `wire`, `spec` and `arrays`. `scan` and `replace_page` change the page table; `trees` alone
changes the tables of the trees. A page that is looked up is marked as unstable by its own node at once; where
something else comes of it, a message of `PageUpdates` corrects the mark.
"""
