"""Checks whether this host's KSM is available: present, permitted and unused."""

from __future__ import annotations

import os
from pathlib import Path

from ksmcluster.system.errors import UserError
from ksmcluster.validate.knobs import Knobs
from ksmcluster.validate.procfs import users_of_ksm

_COUNTS_IN_USE = ("pages_shared", "pages_unshared", "pages_volatile")


def check_permission(folder: Path) -> None:
    """Raise UserError if this host has no KSM, or if we may not drive it."""
    if not (folder / "run").exists():
        raise UserError(f"{folder} does not exist, so this kernel has no KSM; run on Linux with CONFIG_KSM")
    if os.geteuid() != 0 or not os.access(folder / "run", os.W_OK):
        raise UserError(f"{folder}: no permission to drive ksmd; run as root, outside of any container")


def check_unused(knobs: Knobs) -> None:
    """Raise UserError if another program uses KSM, because that would invalidate the comparison."""
    if users := users_of_ksm(but=()):
        raise UserError(f"KSM is in use on this host by {', '.join(users[:3])}; end these processes first")
    for name in _COUNTS_IN_USE:
        if number := knobs.number(name):
            raise UserError(f"KSM is in use on this host: {name} is {number}; write 2 to run to unmerge all")
