"""Bad input to the real nodes: one clear line, a non-zero exit, nothing hangs, nothing is left."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from safetensors.numpy import save_file

from nodes.emotion.weights import find_weights
from tests.support.command import emograph


def write_video(path: Path, frames: int = 60) -> Path:
    """A small video of a moving ramp; the container by the suffix."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        rng = np.random.default_rng(0)
        for index in range(frames):
            picture = np.roll(rng.integers(0, 255, (120, 160, 3), dtype=np.uint8), index, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
    return path


def one_line(stderr: str) -> str:
    assert "Traceback" not in stderr
    errors = [line for line in stderr.splitlines() if line.startswith("emograph: error: ")]
    assert len(errors) == 1, stderr
    return errors[0]


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "missing.mp4", "missing.mp4"),
        (lambda p: _text(p / "text.mp4"), "text.mp4"),
        (lambda p: _empty(p / "empty.mp4"), "empty.mp4"),
        (lambda p: cut(write_video(p / "cut.mp4"), 0.5), "cut.mp4"),
        (lambda p: _folder(p / "folder"), "folder"),
    ],
    ids=["missing", "text", "empty", "truncated-mp4", "folder-without-images"],
)
def test_files_that_are_no_video(tmp_path: Path, make, message: str):
    done = emograph("launch", f"capture name=door uri={make(tmp_path)} ! fakesink", "--set", "mode=lossless")
    assert done.returncode == 1
    line = one_line(done.stderr)
    assert line.startswith("emograph: error: door: ")
    assert message in line


def _text(path: Path) -> Path:
    path.write_text("this is no video\n" * 100)
    return path


def _empty(path: Path) -> Path:
    path.touch()
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    (path / "notes.txt").write_text("no picture")
    return path


def test_a_truncated_video_gives_what_it_has_and_says_so(tmp_path: Path):
    path = cut(write_video(tmp_path / "cut.mkv", 100), 0.6)
    done = emograph("launch", f"capture name=door uri={path} ! fakesink", "--set", "mode=lossless", "--json")
    assert done.returncode == 1
    assert re.fullmatch(
        r"emograph: error: door: '.*cut.mkv' ended after \d+ frames, .*: cut short\?", one_line(done.stderr)
    )
    ledger = json.loads(done.stdout)["cameras"]["door"]
    assert 40 < ledger["captured"] < 70
    assert ledger["delivered"] == ledger["captured"]


def test_a_camera_that_does_not_answer():
    with socket.socket() as silent:  # accepts and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"rtsp://user:s3cret@127.0.0.1:{silent.getsockname()[1]}/stream"
        done = emograph("launch", f"capture name=door uri={uri} timeout=2s ! fakesink")
    assert done.returncode == 1
    assert one_line(done.stderr).startswith("emograph: error: door: ")
    assert "s3cret" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "missing.safetensors", "missing.safetensors"),
        (lambda p: "~no-one/x.safetensors", "no weights file at ~no-one/x.safetensors"),
        (lambda p: _text(p / "text.safetensors"), "text.safetensors"),
        (lambda p: _cut_weights(p), "cut.safetensors"),
        (lambda p: _foreign_weights(p), "foreign.safetensors"),
    ],
    ids=["missing", "no-home", "text", "truncated", "foreign"],
)
def test_weights_that_are_none(tmp_path: Path, make, message: str):
    done = emograph("launch", f"testsrc ! haardetect ! emotion name=mood weights={make(tmp_path)} ! fakesink")
    assert done.returncode == 1
    line = one_line(done.stderr)
    assert line.startswith("emograph: error: mood: ")
    assert message in line


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("emotion name=it weights=resnet8", "it: no weights are called 'resnet8'; did you mean 'resnet9'?"),
        ("videosink name=it location=out.webm codec=h264", "it: a .webm file holds no h264; it holds vp9"),
        (
            "videosink name=it location=o.mp4 codec=mpeg4 bitrate=9",
            "it: mpeg4 goes by quality, not by bitrate; h264 goes",
        ),
    ],
)
def test_what_needs_no_file_to_be_known_wrong_is_said_by_check(node: str, message: str):
    done = emograph("check", f"testsrc ! haardetect ! {node}" + (" ! fakesink" if node.startswith("emotion") else ""))
    assert done.returncode == 1
    assert one_line(done.stderr).startswith(f"emograph: error: launch string: {message}")


def _cut_weights(folder: Path) -> Path:
    path = folder / "cut.safetensors"
    path.write_bytes(find_weights("resnet9-s").read_bytes())
    return cut(path, 0.5)


def _foreign_weights(folder: Path) -> Path:
    path = folder / "foreign.safetensors"
    save_file({"weight": np.zeros((3, 3), np.float32)}, str(path))
    return path


def test_a_port_in_use():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        graph = f"testsrc ! haardetect ! publish name=events endpoint=tcp://127.0.0.1:{port}"
        done = emograph("launch", graph)
    assert done.returncode == 1
    line = one_line(done.stderr)
    assert f"127.0.0.1:{port}" in line
    assert "in use" in line


def test_a_port_that_two_of_the_run_would_have():
    endpoint = "tcp://127.0.0.1:5556"
    done = emograph("launch", f"testsrc ! haardetect ! publish endpoint={endpoint}", "--monitor", endpoint)
    assert done.returncode == 1
    assert f"publish0: it would listen at {endpoint}, where --monitor listens" in one_line(done.stderr)


def test_no_screen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    done = emograph("launch", "testsrc ! display name=window")
    assert done.returncode == 1
    assert "window: " in one_line(done.stderr)


def test_an_unwritable_video(tmp_path: Path):
    done = emograph("launch", "testsrc num_buffers=5 ! videosink name=film location=/proc/nosuch/x.mp4")
    assert done.returncode == 1
    assert one_line(done.stderr).startswith("emograph: error: film: ")


def test_a_tiny_dev_shm_is_no_matter():
    """Rings are memfds: neither a container's 64 MB nor a full /dev/shm concerns them."""
    inside = (
        "mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "
        f"{sys.executable} -m pipeline.cli launch 'testsrc name=a num_buffers=5 width=1920 height=1080 ! fakesink' "
        "--set mode=lossless"
    )
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", inside]
    probe = subprocess.run([*command[:-1], "mount -t tmpfs tmpfs /dev/shm"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("this machine does not let a test mount a file system of its own (unshare)")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^a +5 +5 +0 +0 ", done.stdout, re.MULTILINE), done.stdout


def test_check_warns_of_files_that_are_not_there_and_the_graph_is_right_all_the_same(tmp_path: Path):
    """It may be meant for another machine; a wrong path would else be found only when it is launched."""
    clip, graph = tmp_path / "clip.mp4", tmp_path / "g.yaml"
    graph.write_text(f"""
nodes:
  door: {{type: capture, uri: "{clip}"}}
  faces: {{type: haardetect}}
  mood: {{type: emotion, weights: "nosuch\\x1b.safetensors"}}
  out: {{type: fakesink}}
links: [door ! faces ! mood ! out]
""")
    weights = f"{graph}:5: mood: no such file or folder: 'nosuch?.safetensors'"
    done = emograph("check", str(graph))
    assert (done.returncode, done.stdout) == (0, f"{graph}: ok: 1 camera, 4 nodes, 4 processes, live\n")
    assert done.stderr.splitlines() == [
        f"emograph: warning: {graph}:3: door: no such file or folder: '{clip}'",
        f"emograph: warning: {weights}",
    ]
    clip.write_bytes(b"")
    assert list(json.loads(emograph("check", str(graph), "--json").stdout)["missing"]) == ["mood"]
    done = emograph("check", str(graph), "--set", "mood.weights=resnet9-s")
    assert (done.returncode, done.stderr) == (0, "")
