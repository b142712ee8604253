"""Whether this host's KSM can be had: there, open to us, and used by nobody."""

from __future__ import annotations

import os
from pathlib import Path

from ksmcluster.system.errors import UserError
from ksmcluster.validate.knobs import Knobs
from ksmcluster.validate.procfs import users_of_ksm

_COUNTS_IN_USE = ("pages_shared", "pages_unshared", "pages_volatile")


def check_permission(folder: Path) -> None:
    """Raises UserError where there is no KSM, or no permission to drive it."""
    if not (folder / "run").exists():
        raise UserError(f"{folder}: not there, so this kernel has no KSM; run on Linux with CONFIG_KSM")
    if os.geteuid() != 0 or not os.access(folder / "run", os.W_OK):
        raise UserError(f"{folder}: no permission to drive ksmd; run as root, outside of any container")


def check_unused(knobs: Knobs) -> None:
    """Raises UserError if somebody else uses KSM, so that no comparison would mean anything."""
    if users := users_of_ksm(but=()):
        raise UserError(f"KSM is in use on this host, by {', '.join(users[:3])}; end that first")
    for name in _COUNTS_IN_USE:
        if number := knobs.number(name):
            raise UserError(f"KSM is in use on this host: {name} is {number}; write 2 to run to end that")
