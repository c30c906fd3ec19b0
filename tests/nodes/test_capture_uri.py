"""How capture reads a URI, and how it shows one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from nodes.capture import Capture, redact
from nodes.capture.uri import parse


@pytest.mark.parametrize(
    ("uri", "kind", "address"),
    [
        ("0", "camera", "/dev/video0"),
        ("/dev/video2", "camera", "/dev/video2"),
        ("v4l2:///dev/video1", "camera", "/dev/video1"),
        ("/dev/v4l/by-id/usb-cam", "camera", "/dev/v4l/by-id/usb-cam"),
        ("clips/a.mp4", "path", "clips/a.mp4"),
        ("a:b.mp4", "path", "a:b.mp4"),
        ("file:///tmp/my%20clip.mp4", "path", "/tmp/my clip.mp4"),
        ("file://localhost/tmp/a.mp4", "path", "/tmp/a.mp4"),
        ("rtsp://u:p@10.0.0.5/stream1", "rtsp", "rtsp://u:p@10.0.0.5/stream1"),
        ("RTSPS://cam:9000/x", "rtsp", "RTSPS://cam:9000/x"),
        ("https://cam/video.mjpg?x=1", "http", "https://cam/video.mjpg?x=1"),
    ],
)
def test_kinds_of_uri(uri: str, kind: str, address: str) -> None:
    place = parse(uri)
    assert (place.kind, place.address) == (kind, address)


def test_a_number_is_a_webcam() -> None:
    assert Capture("door", uri=0).props.uri == "0"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("clips/a.mp4", "clips/a.mp4"),
        ("rtsp://cam:554/s?channel=1", "rtsp://cam:554/s?channel=1"),
        ("rtsp://user:word@cam/s", "rtsp://***@cam/s"),
        ("rtsp://user:w@rd/w?rd word@cam/s", "rtsp://***@cam/s"),
        ("rtsp://word@cam/s", "rtsp://***@cam/s"),
        ("rtsp:user:word@cam/s", "rtsp:***@cam/s"),
        ("http://cam/v?usr=word&pwd=word&n=1", "http://cam/v?usr=***&pwd=***&n=1"),
        ("http://cam/v?Access_Token=word", "http://cam/v?Access_Token=***"),
        ("rtsp://cam/user=word_password=wo_rd_channel=1", "rtsp://cam/user=***_password=***_channel=1"),
        ("rtsp://user:wo'rd word@cam/s", "rtsp://***@cam/s"),
        ("rtsp://cam/user=word_password=word_channel=1", "rtsp://cam/user=***_password=***_channel=1"),
    ],
)
def test_redact(uri: str, shown: str) -> None:
    assert redact(uri) == shown


def test_a_long_address_takes_no_longer_for_each_letter() -> None:
    def took(length: int) -> float:
        begin = time.process_time()
        redact("a://" * (length // 4))
        return time.process_time() - begin

    took(1000)
    assert took(400_000) < 40 * max(took(40_000), 0.002)


def test_nothing_shows_the_password() -> None:
    uri = "rtsp://user:word@cam/s"
    node = Capture("door", uri=uri)
    assert "word" not in repr(node.props) + repr(parse(uri)) + str(node.props)


def test_the_examples_in_the_docs_are_right() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cameras.md").read_text()
    nodes = yaml.safe_load(page.split("```yaml")[1].split("```")[0])["nodes"]
    kinds = set()
    for name, properties in nodes.items():
        assert properties.pop("type") == "capture"
        kinds.add(parse(Capture(name, **properties).props.uri).kind)
    assert kinds == {"camera", "path", "rtsp", "http"}
