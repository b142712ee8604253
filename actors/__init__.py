"""The Ray actors of ksmcluster: they hold the nodes of the simulated machine and carry its messages.

This package decides which actor has which nodes and where it runs, starts and stops Ray, and tunes its
processes; no rule of the kernel lives here. It imports `cluster` and `ray`, and changes simulated state only
through `cluster`. Importing it chooses numpy's sort, which has to happen before numpy is imported: in a Ray
worker this is the first import of ours.
"""

from actors.tuning.numpy_dispatch import choose_sort

choose_sort()
