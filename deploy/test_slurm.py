"""`ksmcluster.sbatch` under a real Slurm: two nodes of its own on this machine (`make slurm`; needs root)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest

Found = TypeVar("Found")
SCRIPT = Path(__file__).with_name("ksmcluster.sbatch")
BIN = Path(sys.executable).parent
SIMULATE = ("simulate", "tiny", "--nodes", "4", "--quiet")
#: Options of munged, and how the names of their files end.
MUNGE_FILES = {
    "key-file": "key",
    "socket": "socket",
    "pid-file": "pid",
    "log-file": "log",
    "seed-file": "seed",
}
CONFIGURATION = """\
ClusterName=ksmcluster
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
MpiDefault=none
ReturnToService=2
KillWait=20
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=1000
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=1000
PartitionName=all Nodes=one,two Default=YES State=UP
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def until(look: Callable[[], Found], seconds: float = 120) -> Found:
    """Return what `look` finds, once it finds something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)
    return found


class Job(NamedTuple):
    """A job, whose output is in its working directory."""

    number: str
    folder: Path
    environment: Mapping[str, str]

    @property
    def output(self) -> str:
        file = self.folder / f"slurm-{self.number}.out"
        return file.read_text() if file.exists() else ""

    @property
    def ray(self) -> Path:
        """The temporary directory of its Ray."""
        return Path(f"/tmp/ksmcluster-{self.number}")

    def ended(self) -> str:
        """Return the state that the job ended in, such as COMPLETED, or nothing."""
        shown = subprocess.run(
            ["scontrol", "show", "job", self.number], env=self.environment, capture_output=True, text=True
        )
        state = shown.stdout.partition("JobState=")[2].partition(" ")[0]
        return "" if state in ("PENDING", "RUNNING", "COMPLETING") else state

    def processes(self) -> list[str]:
        """Return the command lines of the processes that its Ray has."""
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if f"{self.ray}/" in line:
                found.append(line)
        return found


class Slurm(NamedTuple):
    """A Slurm that runs."""

    folder: Path
    environment: Mapping[str, str]

    def submit(self, *arguments: str, sbatch: tuple[str, ...] = ()) -> Job:
        folder = self.folder / "jobs"
        folder.mkdir(exist_ok=True)
        command = ["sbatch", "--parsable", *sbatch, SCRIPT, *arguments]
        done = subprocess.run(
            command, cwd=folder, env=self.environment, check=True, capture_output=True, text=True
        )
        return Job(done.stdout.strip(), folder, self.environment)

    def cancel(self, job: Job) -> None:
        subprocess.run(["scancel", job.number], env=self.environment, check=True)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    for program in ("munged", "slurmctld", "slurmd"):
        assert shutil.which(program), f"{program} is missing: apt-get install slurm-wlm munge"
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(host=socket.gethostname(), ports=free_ports(3), folder=folder)
    )
    own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
    environment = own | {"SLURM_CONF": str(configuration), "PATH": f"{BIN}:{own['PATH']}"}
    munge = [f"--{name}={folder}/munge.{end}" for name, end in MUNGE_FILES.items()]
    commands = (
        ["munged", "--foreground", "--force", *munge],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-N", "one"],
        ["slurmd", "-D", "-N", "two"],
    )
    started = []
    try:
        for command in commands:
            with (folder / "daemons.log").open("a") as log:
                started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            if command[0] == "munged":
                until(lambda: (folder / "munge.socket").exists(), 20)
        until(lambda: idle_nodes(environment) == 2, 60)
        yield Slurm(folder, environment)
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=30)


def idle_nodes(environment: Mapping[str, str]) -> int:
    shown = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format=%T"], env=environment, capture_output=True, text=True
    )
    return shown.stdout.split().count("idle")


@pytest.fixture(scope="module")
def other_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    """Another Ray of this user on the same machine; the jobs must leave it alone."""
    folder = Path(f"/tmp/other-ray-{os.getpid()}")
    options = ["--head", "--block", f"--temp-dir={folder}", "--include-dashboard=false", "--num-cpus=1"]
    with (
        (tmp_path_factory.mktemp("other") / "log").open("w") as log,
        subprocess.Popen(
            [BIN / "ray", "start", *options, f"--port={free_ports(1)[0]}"], stdout=log, stderr=log
        ) as head,
    ):
        until(lambda: (folder / "ray_current_cluster").exists(), 60)
        yield head
        assert head.poll() is None, "a job ended another Ray"
        head.send_signal(signal.SIGTERM)
    shutil.rmtree(folder)


def test_a_job_on_two_nodes_has_the_result_of_one_process(
    slurm: Slurm, other_ray: subprocess.Popen[bytes]
) -> None:
    job = slurm.submit(*SIMULATE, "--output", "results")
    state = until(job.ended)
    assert state == "COMPLETED", job.output
    inline = [BIN / "ksmcluster", *SIMULATE, "--engine", "inline", "--json"]
    expected = json.loads(subprocess.run(inline, check=True, capture_output=True).stdout)
    assert json.loads((job.folder / "results" / "summary.json").read_text()) == expected
    assert "ray" in (job.folder / "results" / "provenance.json").read_text()
    assert_nothing_is_left(job)
    assert other_ray.poll() is None


def test_two_jobs_at_the_same_time(slurm: Slurm) -> None:
    jobs = [slurm.submit(*SIMULATE, sbatch=("--nodes=1", "--cpus-per-task=1")) for _ in range(2)]
    for job in jobs:
        assert until(job.ended) == "COMPLETED", job.output
        assert_nothing_is_left(job)


def test_scancel_ends_the_job_and_its_ray_alone(slurm: Slurm, other_ray: subprocess.Popen[bytes]) -> None:
    job = slurm.submit("simulate", "tiny", "--passes", "1000000")
    until(lambda: "pass 3 of" in job.output)
    assert job.processes()
    slurm.cancel(job)
    assert until(job.ended, 60) == "CANCELLED"
    until(lambda: not job.processes(), 60)
    assert_nothing_is_left(job)
    assert other_ray.poll() is None


def test_a_mistake_is_the_exit_code_of_the_job(slurm: Slurm) -> None:
    job = slurm.submit("simulate", "no-such-scenario")
    assert until(job.ended) == "FAILED"
    assert "no-such-scenario" in job.output
    assert_nothing_is_left(job)


def assert_nothing_is_left(job: Job) -> None:
    assert job.processes() == []
    assert not job.ray.exists()
