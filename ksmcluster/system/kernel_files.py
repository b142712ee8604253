"""Reads /proc and /sys: processes and KSM."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")
KSM = Path("/sys/kernel/mm/ksm")


def read(path: Path) -> str | None:
    """Return the text of a file; None if its process has ended or the kernel has no such file."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None


def running() -> list[int]:
    """Return the PIDs of all processes, ascending."""
    return sorted(int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())


def parent_of(pid: int) -> int | None:
    """Return the PID of a process's parent; None if the process has ended."""
    stat = text(pid, "stat")
    return int(stat.rpartition(")")[2].split()[1]) if stat else None


def text(pid: int, name: str) -> str:
    """Return a file of a process; empty if the process has ended or hides it."""
    try:
        return read(PROC / str(pid) / name) or ""
    except PermissionError:
        return ""


def parsed_ksm_stat(stat: str) -> dict[str, int | str]:
    """Return the fields in the text of /proc/PID/ksm_stat: numbers, and "yes" and "no"."""
    fields = (line.replace(":", " ").split() for line in stat.splitlines())
    return {name: value if value in ("yes", "no") else int(value) for name, value in fields}


def ksm_users() -> list[int]:
    """Return the processes with memory that ksmd scans, ascending (ksm_stat, or VmFlags of smaps)."""
    return [pid for pid in running() if _uses_ksm(pid)]


def _uses_ksm(pid: int) -> bool:
    stat = parsed_ksm_stat(text(pid, "ksm_stat"))
    if stat.get("ksm_rmap_items"):
        return True
    if "ksm_mergeable" in stat:
        return "yes" in (stat["ksm_mergeable"], stat.get("ksm_merge_any"))
    return any(line.startswith("VmFlags:") and " mg" in line for line in text(pid, "smaps").splitlines())
