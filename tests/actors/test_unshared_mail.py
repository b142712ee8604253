"""Actors that cannot share memory, as in a sandbox or a namespace of their own: the result stays the same."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import ray

from actors.links.shared_mail import SharedMail
from actors.run_options import INLINE, RunOptions
from actors.simulation.actor_pool import ActorPool
from actors.simulation.node_actor import LITTLE_MAIL
from actors.simulation.run_passes import run_passes
from cluster.machine.pass_result import PassResult
from ksmcluster.bench.tools.shapes import spread_out
from tests.actors.test_engine import same
from tests.actors.test_far_mail import in_columns, in_parcels

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or os.uname().machine != "x86_64", reason="mounts, and knows the system calls of x86-64"
)

#: Of x86-64.
MEMFD_CREATE = 319
SPEC = spread_out(6, 1 << 15, 2)


def forbid_memfd() -> None:
    """Let memfd_create(2) fail in this thread from now on."""

    def instruction(code: int, jump_if: int, jump_else: int, operand: int) -> bytes:
        return struct.pack("HBBI", code, jump_if, jump_else, operand)

    program = (
        instruction(0x20, 0, 0, 0)  # load the number of the system call
        + instruction(0x15, 0, 1, MEMFD_CREATE)
        + instruction(0x06, 0, 0, 0x00050000 | errno.EPERM)
        + instruction(0x06, 0, 0, 0x7FFF0000)  # allow
    )

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_void_p))

    buffer = ctypes.create_string_buffer(program, len(program))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    filter_ = Filter(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    assert libc.prctl(22, 2, ctypes.byref(filter_), 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def hide_proc() -> None:
    """Hide all processes from this thread, in a mount namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(0x00020000) == 0  # CLONE_NEWNS
    assert libc.mount(b"none", b"/", None, 1 << 14 | 1 << 18, None) == 0  # MS_REC | MS_PRIVATE
    assert libc.mount(b"none", b"/proc", b"tmpfs", 0, None) == 0


def limit_files() -> None:
    """Let no file of this process become as large as a superstep's mail."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LITTLE_MAIL, resource.RLIM_INFINITY))


@pytest.fixture(scope="module")
def inline() -> list[PassResult]:
    results = list(run_passes(SPEC, INLINE))
    assert results[1].nodes["bytes_sent"].min() > LITTLE_MAIL
    return results


@pytest.mark.parametrize("change", [forbid_memfd, hide_proc, limit_files])
@pytest.mark.parametrize(
    ("changed", "layout"), [([1], in_columns), (range(6), in_columns), ([1], in_parcels)]
)
def test_the_result_is_the_same(
    ray_cluster: str,
    inline: list[PassResult],
    change: Callable[[], None],
    changed: Sequence[int],
    layout: Callable[[object], None],
) -> None:
    """After actors have started, so that they take it that they can share memory."""
    with closing(ActorPool()) as pool:
        actors = pool.actors(6)
        ray.get([actor.__ray_call__.remote(layout) for actor in actors])
        ray.get([actors[actor].__ray_call__.remote(lambda _: change()) for actor in changed])
        made = list(run_passes(SPEC, RunOptions(address=ray_cluster), pool=pool))
    assert same(made, inline)


@pytest.mark.parametrize("change", [forbid_memfd, hide_proc])
def test_an_actor_finds_out_when_it_starts(change: Callable[[], None]) -> None:
    def works() -> bool:
        change()
        with closing(SharedMail()) as shared_mail:
            return shared_mail.works

    # What is changed concerns this thread only.
    with ThreadPoolExecutor(1) as executor:
        assert not executor.submit(works).result()
