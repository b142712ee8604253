"""What becomes of the visits of one scan window: `decide_window.decide`, which changes nothing.

A content takes the first way that has rules for it:

- `decide_window`: the trees have nothing of it, as with most contents.
- `plan`, in closed form or in lockstep; `classify` chooses, `batch` gathers what a plan starts from, and
  `plan_changes` turns the plan into changes and messages.
- `sequential`, visit by visit, with the kernel's rules for chains in `stable_nodes`.
- `walk`, search by search, where records keep the shapes of the trees.

Which dup of a chain gets the next sharer: `decide_batch.dups_in_search_order` puts dups in order for `plan`,
which fills them one after the other; `stable_nodes.ContentNodes.pick_dup_and_tidy` finds it for `sequential`.

Imports the tables of `cluster.ksm.trees` and reads them; adds to `TableChanges` and `PageUpdates` alone.
"""
