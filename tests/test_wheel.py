"""The wheel in an environment of its own, outside of the repository, beside other people's packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import pytest

REPOSITORY = Path(__file__).parents[1]
SCRIPT = "import sys\nfrom ksmcluster.cli import main\nsys.exit(main())\n"
#: Of another project.
FOREIGN = "VALUE = 1\n"


class Installed(NamedTuple):
    """A virtual environment with the wheel."""

    python: Path
    site: Path
    command: Path

    def run(
        self, *arguments: str | Path, cwd: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(
            [self.python, *arguments],
            cwd=cwd,
            env={**clean, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=600,
        )

    def imports(self, cwd: Path, program: str = "import ksmcluster") -> str:
        """The last line of the traceback, if there is one."""
        return self.run("-c", program, cwd=cwd).stderr.rpartition("Error: ")[2].rstrip("\n")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    venv.create(folder / "venv", symlinks=True)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (wheel,) = folder.glob("*.whl")
    with ZipFile(wheel) as file:
        file.extractall(site)
    # Dependencies are those of this environment. Its own .pth files do not count, so the repository is not
    # on the path.
    dependencies = dict.fromkeys(path for path in sys.path if path.endswith("site-packages"))
    (site / "dependencies.pth").write_text("\n".join(dependencies))
    command = folder / "venv" / "bin" / "ksmcluster"
    command.write_text(SCRIPT)
    return Installed(folder / "venv" / "bin" / "python", site, command)


def module(folder: Path, name: str) -> Path:
    (folder / f"{name}.py").write_text(FOREIGN)
    return folder / f"{name}.py"


def package(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(FOREIGN)
    return folder / name


def folder_of_data(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    (folder / name / "table.csv").write_text("1,2\n")
    return folder / name


def test_the_wheel_holds_three_packages_and_no_other_name(installed: Installed) -> None:
    names = {path.name for path in installed.site.iterdir() if path.suffix not in (".pth", ".dist-info")}
    assert names == {"actors", "cluster", "ksmcluster"}


def test_scenarios_come_along(installed: Installed, tmp_path: Path) -> None:
    listed = installed.run(installed.command, "config", "list", cwd=tmp_path)
    assert (listed.returncode, listed.stderr) == (0, "")
    for scenario in (REPOSITORY / "configs").glob("*.toml"):
        assert scenario.stem in listed.stdout
    arguments = ("simulate", "tiny", "--engine", "inline", "--quiet", "--json")
    ran = installed.run(installed.command, *arguments, cwd=tmp_path)
    assert json.loads(ran.stdout)["nodes"] == 2


@pytest.mark.parametrize("name", ["cluster", "actors"])
@pytest.mark.parametrize("make", [module, package])
def test_another_package_is_named_in_one_line(
    installed: Installed, tmp_path: Path, name: str, make: object
) -> None:
    assert callable(make)
    path = make(tmp_path, name)
    message = installed.imports(tmp_path)
    assert message.startswith(f"{path} hides ")
    assert "rename it" in message
    assert "\n" not in message


def test_another_package_that_was_imported_before_is_named(installed: Installed, tmp_path: Path) -> None:
    path = package(tmp_path / "mine", "cluster")
    program = f"import sys; sys.path.insert(0, {str(tmp_path / 'mine')!r}); import cluster; sys.path.pop(0)"
    assert installed.imports(tmp_path, f"{program}; import ksmcluster").startswith(
        f"{path} hides ksmcluster's own package"
    )


def test_a_distribution_that_overwrote_ours_is_told(installed: Installed, tmp_path: Path) -> None:
    for name in ("cluster", "actors", "ksmcluster"):
        shutil.copytree(installed.site / name, tmp_path / name)
    (tmp_path / "cluster" / "__init__.py").write_text(FOREIGN)
    assert installed.imports(tmp_path).startswith(f"{tmp_path / 'cluster'} belongs to another distribution")


def test_the_command_says_so_without_a_traceback(installed: Installed, tmp_path: Path) -> None:
    path = package(tmp_path / "mine", "cluster")
    environment = {"PYTHONPATH": str(tmp_path / "mine")}
    by_name = installed.run(installed.command, "--version", cwd=tmp_path, environment=environment)
    by_module = installed.run("-m", "ksmcluster.cli", "--version", cwd=tmp_path, environment=environment)
    for ran in (by_name, by_module):
        assert ran.stderr.startswith(f"error: {path} hides ")
        assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)


def test_packages_that_come_later_or_hold_data_are_in_nobodys_way(
    installed: Installed, tmp_path: Path
) -> None:
    package(tmp_path / "later", "cluster")
    folder_of_data(tmp_path, "cluster")
    program = f"import sys; sys.path.append({str(tmp_path / 'later')!r}); import ksmcluster.api"
    assert installed.imports(tmp_path, program) == ""


def test_what_only_workers_would_find_is_named_before_ray_starts(
    installed: Installed, tmp_path: Path
) -> None:
    path = package(tmp_path, "cluster")
    ran = installed.run(installed.command, "simulate", "tiny", cwd=tmp_path)
    assert ran.stderr.startswith(f"error: {path / '__init__.py'}: Ray's workers would import it ")
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    arguments = ("simulate", "tiny", "--engine", "inline", "--quiet")
    inline = installed.run(installed.command, *arguments, cwd=tmp_path)
    assert (inline.returncode, inline.stderr) == (0, "")


def test_actors_run_beside_a_folder_of_data(installed: Installed, tmp_path: Path) -> None:
    folder_of_data(tmp_path, "cluster")
    folder_of_data(tmp_path, "configs")
    ran = installed.run(installed.command, "simulate", "tiny", "--quiet", "--json", cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout)["passes"] > 0
