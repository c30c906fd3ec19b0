"""The same work done with other people's software. Scripts that import nothing of emograph: they may run in an
environment of their own (`emograph bench NAME --python PATH`)."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

PEERS = Path(__file__).parent
HOW_TO_GET_FER = (
    "fer: in an environment of its own (it wants TensorFlow), pip install fer 'opencv-contrib-python<5' 'moviepy<2' "
    "'setuptools<81', then --python THAT/bin/python"
)


class MissingPeer(Exception):
    """A peer that cannot run here, and why, or how to get it."""


def ask_fer(python: str, script: str, *arguments: object, given: Iterable[bytes] = ()) -> str:
    """What a script that uses the `fer` package prints; `given` goes to its stdin. Raises MissingPeer."""
    command = [python, str(PEERS / script), *map(str, arguments)]
    with tempfile.TemporaryFile() as messages:
        try:
            peer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages)
        except OSError as error:
            raise MissingPeer(f"{HOW_TO_GET_FER} ({python}: {error.strerror})") from error
        try:
            assert peer.stdin is not None
            assert peer.stdout is not None
            with contextlib.suppress(BrokenPipeError), peer.stdin:
                for part in given:
                    peer.stdin.write(part)
            told = peer.stdout.read().decode(errors="replace")
            peer.stdout.close()
        finally:
            peer.kill()  # it has ended, but for Ctrl-C
            peer.wait()
        if told.strip():
            return told
        messages.seek(0)
        lines = messages.read().decode(errors="replace").strip().splitlines()
    last = lines[-1] if lines else "it said nothing"
    raise MissingPeer(HOW_TO_GET_FER if last.startswith("ModuleNotFoundError") else f"fer: {last}")
