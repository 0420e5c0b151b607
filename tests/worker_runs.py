"""Runs with workers on Ray, in a process of their own, and where their processes are."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
from conftest import ROOT
from scripts import SCRIPTS

CASE = SCRIPTS["mathneuro"]
MORE = ["--pre_train_eval", "--save_masks"]
WORKERS = ["--workers", "2"]


def start(model: Path, save_path: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-W", "error", str(ROOT / CASE.file)]
    return subprocess.Popen(
        [*command, *CASE.flags(model, save_path, *MORE, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def cells(save_path: Path) -> list[Path]:
    return list((save_path / "cells").rglob("*.json"))


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The processes of a run's workers."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "ray::Host" in " ".join(child.cmdline()):
                found.append(child)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def wait_for(condition, process: subprocess.Popen) -> None:
    while not condition():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)


def workers_with_cells(process: subprocess.Popen, save_path: Path) -> list[psutil.Process]:
    """The workers, once the first cell is there: to look for them takes as long as some cells."""
    found: list[psutil.Process] = []
    wait_for(lambda: found.extend(workers_of(process)) or found, process)
    wait_for(lambda: cells(save_path), process)
    return found
