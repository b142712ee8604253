"""Checkpoints with other contents whose digests are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from blake3 import blake3

from actors.checkpoint.state_files import SavedFile


def rewrite(folder: Path, name: str, document: Any) -> None:
    """Put a document in place of a file of a checkpoint, with the digests that belong to it."""
    (folder / name).write_text(json.dumps(document))
    manifest = json.loads((folder / "manifest.json").read_text())
    if name != "manifest.json":
        data = (folder / name).read_bytes()
        saved = SavedFile(name, len(data), blake3(data).hexdigest())
        manifest["files"] = [saved if file[0] == name else file for file in manifest["files"]]
    if isinstance(manifest, dict):
        manifest.pop("digest", None)
        digest = blake3(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps({**manifest, "digest": digest}))
