"""The linter as `make check` starts it, and the programs that `make system` sees to."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from deployment.lint import __main__ as lint
from deployment.lint.tools import NotInstalled

PROJECT = Path(__file__).resolve().parents[3]


def test_a_missing_program_is_a_notice_or_with_complete_a_finding(monkeypatch, capsys):
    def missing(_):
        raise NotInstalled("hadolint is not installed")
        yield

    monkeypatch.setattr(lint, "CHECKS", {"dockerfiles": missing, "nothing": lambda _: iter(())})
    assert lint.main([]) == 0
    assert capsys.readouterr().err == (
        "notice: dockerfiles: not checked: hadolint is not installed\n"
    )
    assert lint.main(["--complete"]) == 1
    assert "dockerfiles: not checked" in capsys.readouterr().err


def test_a_finding_fails_and_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(lint, "CHECKS", {"one": lambda _: iter(["file.yaml: it is wrong"])})
    assert lint.main([]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "file.yaml: it is wrong\n")


def made(tmp_path, installed, user):
    """`make system` on a machine with these packages; what was printed, what apt-get was told."""
    programs = tmp_path / "programs"
    programs.mkdir()
    told = tmp_path / "told"
    told.touch()
    stubs = {
        "dpkg-query": f'[[ " {installed} " == *" ${{@: -1}} "* ]] && echo installed',
        "id": f"echo {user}",
        "apt-get": f'echo "$*" >> {told}',
    }
    for name, body in stubs.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(0o755)
    done = subprocess.run(
        ["make", "--no-print-directory", "system"], cwd=PROJECT, capture_output=True, text=True,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "MAKEFLAGS": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, told.read_text()


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_system_is_silent_where_all_is_there_and_installs_what_is_not(tmp_path):
    wanted = (PROJECT / "deployment/debian-packages.txt").read_text().split()
    for number, (installed, user) in enumerate([(wanted, 0), (wanted[1:], 0), (wanted[1:], 1000)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        printed, told = made(folder, " ".join(installed), user)
        if installed == wanted:
            assert (printed, told) == ("", "")
        elif user == 0:
            assert told.splitlines()[-1].endswith(wanted[0])
        else:
            assert told == ""
            assert printed.startswith("notice: ")
            assert wanted[0] in printed
