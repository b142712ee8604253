"""From snapshot files to what the simulated machine is filled with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cluster.snapshot_pages import SnapshotMapping, SnapshotPages, SnapshotProcess
from ksmcluster.snapshot import Snapshot


def load_pages(path: Path | str) -> SnapshotPages:
    """All mergeable pages of a snapshot, 16 bytes a page and moment.

    Raises UserError if the file is no snapshot.
    """
    with Snapshot.open(path) as snapshot:
        moments = range(len(snapshot.moments))
        processes = []
        for index, process in enumerate(snapshot.processes):
            pages = tuple(snapshot.pages(index, moment) for moment in moments)
            processes.append(
                SnapshotProcess(
                    name=process.name,
                    # Pages that KSM would pass over are not loaded, so whatever is may be merged.
                    mappings=tuple(
                        SnapshotMapping(m.name, m.start_vpn, m.pages, mergeable=True)
                        for m in process.mappings
                    ),
                    moments=tuple((vpn.astype(np.int64), content) for vpn, content in pages),
                )
            )
        return SnapshotPages(tuple(processes), snapshot.moments)
