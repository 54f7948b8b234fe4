"""What decides the numbers is written down, and nothing that changes from run to run."""

import importlib.metadata
import json
import os
import platform
import socket
from pathlib import Path

import pytest

from tasks.environment import describe_environment, write_environment


def test_it_names_what_is_installed_and_leaves_out_what_is_not() -> None:
    packages = describe_environment()["packages"]
    assert packages["keras"] == importlib.metadata.version("keras")
    assert packages["pillow"] == importlib.metadata.version("pillow")
    assert len({"tensorflow", "tensorflow-cpu"} & packages.keys()) == 1
    assert list(packages) == sorted(packages)


def test_threads_are_those_tensorflow_is_told_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "7")
    assert describe_environment()["threads"] == 7
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS")
    assert describe_environment()["threads"] == len(os.sched_getaffinity(0))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="instruction sets are named after x86's")
def test_instruction_sets_are_listed_and_other_flags_are_not() -> None:
    features = describe_environment()["processor_features"]
    assert "sse4_2" in features
    assert "fpu" not in features
    assert features == sorted(features)


def test_the_file_is_the_same_each_time_and_names_no_host(tmp_path: Path) -> None:
    write_environment(tmp_path)
    first = (tmp_path / "environment.json").read_bytes()
    write_environment(tmp_path)
    assert (tmp_path / "environment.json").read_bytes() == first
    assert json.loads(first)["python"] == platform.python_version()
    assert socket.gethostname().encode() not in first
