"""What a node class declares, and how wrong properties are told."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from pydantic import Field

from pipeline import (
    BatchTransform,
    Buffer,
    GraphError,
    Harness,
    Properties,
    Sink,
    Source,
    Transform,
    UserError,
    VideoInfo,
)
from pipeline.caps import Access, Pad, mismatch, pad
from pipeline.durations import seconds
from pipeline.node import Words
from pipeline.registry import NodeType, find


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("2min", 120.0),
        ("1h", 3600.0),
        ("5m", 300.0),
        ("40us", 40e-6),
        (3, 3),
        (" 5 ", 5.0),
    ],
)
def test_durations(text: object, value: float):
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["soon", "5 parsecs", "-3s", ""])
def test_what_is_no_duration(text: str):
    with pytest.raises(ValueError, match="is not a duration"):
        seconds(text)


class Needy(Sink):
    """A sink with a required property."""

    class Properties(Properties):
        path: str = Field(description="where to")
        count: int = Field(1, ge=1)
        words: Words = Field([])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "n: needy needs the property 'path'"),
        ({"path": "x", "cuont": 3}, "n: unknown property 'cuont' of needy; did you mean 'count'?"),
        ({"path": "x", "count": 0}, "n: property 'count' of needy is 0: it must be at least 1"),
        (
            {"path": 40},
            """n: property 'path' of needy is 40: it must be text: "40" in a file, '"40"' in a launch string""",
        ),
        ({"path": "x", "count": True}, "n: property 'count' of needy is true, and that is no number"),
        ({"path": "x", "words": 7}, "n: property 'words' of needy is 7: a list is needed"),
        ({"path": "x", "count": "\udcff"}, r"n: property 'count' of needy is '\xff': it is not UTF-8;"),
        ({"path": ["rtsp://me:s3cret@host"]}, "n: property 'path' of needy is ['rtsp://***@host']"),
    ],
)
def test_wrong_properties_are_one_line_without_secrets(given: dict, message: str):
    with pytest.raises(GraphError) as caught:
        Needy("n", **given)
    assert str(caught.value).startswith(message)


def test_a_list_may_be_written_with_commas():
    assert Needy("n", path="x", words="a,b").props.words == Needy("n", path="x", words=["a", "b"]).props.words
    assert Needy("n", path="x", words="a").props.words == ["a"]


class NoSrc(Source):
    """A source that forgot its pad."""


class NoPads(Transform):
    """A transform without any."""


class HalfLinked(BatchTransform):
    """A batch transform with one of two."""

    sink = pad("ANY")


class NoSink(Sink):
    """A sink that forgot its pad."""

    src = pad("ANY")


class NoFill(Source):
    """A source whose methods are misspelt."""

    src = pad("ANY")

    def opens(self) -> VideoInfo:
        return VideoInfo(4, 6)


class NoConsume(Sink):
    """A sink that does nothing."""

    sink = pad("ANY")


@pytest.mark.parametrize(
    ("cls", "needed"),
    [
        (NoFill, "is a source, which needs `def open(self)` and `def fill(self, buffer)`"),
        (NoConsume, "is a sink, which needs `def consume(self, buffer)`"),
        (NoSrc, "is a source, which needs `src = pad(...)`"),
        (NoPads, "is a transform, which needs `sink = pad(...)` and `src = pad(...)`"),
        (HalfLinked, "is a batch, which needs `src = pad(...)`"),
        (NoSink, "is a sink, which needs `sink = pad(...)`"),
    ],
)
def test_a_class_without_its_pads_or_methods_is_one_line(cls: type, needed: str):
    with pytest.raises(UserError) as caught:
        NodeType("mine", f"{__name__}:{cls.__name__}", "mine").load()
    assert str(caught.value) == f"node type 'mine' of package mine: {__name__}:{cls.__name__} {needed}"


@pytest.mark.parametrize(
    ("kind", "base", "needed"),
    [(Sink, object, "Properties"), (Source, object, "SourceProperties"), (Source, Properties, "SourceProperties")],
)
def test_properties_made_of_something_else_are_refused(kind: type, base: type, needed: str):
    with pytest.raises(TypeError, match=rf"^Mine: its properties are a `class Properties\({needed}\)`$"):
        type("Mine", (kind,), {"Properties": type("Properties", (base,), {})})


@pytest.mark.parametrize("word", ["tee", "queue"])
def test_elements_of_gstreamer_that_are_not_needed(word: str):
    with pytest.raises(GraphError, match=f"there is no '{word}', and none is needed: "):
        find(word)


@pytest.mark.parametrize("sizes", [(320, 240, 10.0), ("320", 240), (320, -1), (0, 240)])
def test_a_video_of_no_size_names_the_field(sizes: tuple):
    with pytest.raises(
        TypeError, match=r"VideoInfo\(height, width, channels, fps\): \w+ is .*, no whole number above 0"
    ):
        VideoInfo(*sizes)


@pytest.mark.parametrize("fps", [-3, float("nan"), float("inf"), "25", None])
def test_a_rate_that_is_none_is_refused(fps):
    with pytest.raises(TypeError, match="fps is .*, no number from 0 on"):
        VideoInfo(240, 320, fps=fps)
    assert VideoInfo(240, 320, fps=np.float32(25)).fps == VideoInfo(240, 320, fps=Fraction(25)).fps == 25


@pytest.mark.parametrize("word", ["name", "streams", "type", "process", "replicas"])
def test_names_of_the_engine_are_refused_as_properties(word: str):
    properties = type("Properties", (Properties,), {"__annotations__": {word: str}, word: "x"})
    with pytest.raises(TypeError, match=f"cannot be called {word}"):
        type("Wrong", (Sink,), {"Properties": properties})


@pytest.mark.parametrize(
    ("offered", "have", "wanted", "fits"),
    [
        (pad("video/raw", format="BGR"), set(), pad("video/raw", format="BGR"), True),
        (pad("video/raw", format="BGR"), set(), pad("video/raw"), True),
        (pad("video/raw", format="BGR"), set(), pad("video/raw", format="GRAY8"), False),
        (pad("video/raw", format=("BGR", "GRAY8")), set(), pad("video/raw", format="GRAY8"), True),
        (Pad("audio/raw"), set(), pad("video/raw"), False),
        (Pad("audio/raw"), set(), pad("ANY"), True),
        (pad("video/raw"), {"faces"}, pad("video/raw", needs="faces"), True),
        (pad("video/raw"), set(), pad("ANY", needs="faces"), False),
    ],
)
def test_caps_meet_or_say_why_not(offered, have: set[str], wanted, fits: bool):
    reason = mismatch(offered, frozenset(have), wanted)
    assert (reason is None) == fits
    if reason:
        assert "offered " in reason
        assert "needed " in reason


@pytest.mark.parametrize("several", ["faces,emotions", "faces, emotions", {"faces", "emotions"}, ["faces", "emotions"]])
def test_a_pad_takes_several_names(several):
    assert pad(adds=several).adds == pad(needs=several).needs == {"faces", "emotions"}
    assert mismatch(pad(), pad(adds=several).adds, pad("ANY", needs="faces")) is None
    assert pad(format="BGR,GRAY8") == pad(format=["BGR", "GRAY8"]) == Pad(format=("BGR", "GRAY8"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"media": "video/rwa"}, "pad(): unknown media type 'video/rwa'; did you mean 'video/raw'?"),
        ({"format": "rgb"}, "pad(): unknown format 'rgb'; known: BGR, GRAY8"),
        ({"format": ("BGR", "RGB")}, "pad(): unknown format 'RGB'; known: BGR, GRAY8"),
        ({"format": ""}, "pad(): format='': '' is no name"),
        ({"needs": "faces,"}, "pad(): needs='faces,': '' is no name"),
        ({"adds": ["faces", " "]}, "pad(): adds=['faces', ' ']: ' ' is no name"),
        ({"adds": ["faces,emotions"]}, "pad(): adds=['faces,emotions']: 'faces,emotions' is no name"),
        ({"access": "raed"}, "pad(): unknown access 'raed'; did you mean 'read'?"),
    ],
)
def test_a_pad_of_what_there_is_not_is_refused_where_it_is_declared(given: dict, message: str):
    with pytest.raises(ValueError, match="pad") as caught:
        pad(**given)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "uri",
    [
        "rtsp://bob:secret@cam/1", "rtsp://bob:se@cret@cam/1", "rtsp://bob:pa/secret@cam/1", "http://cam/v?user=x&pwd=secret",
        "https://cam/v?token=secret;a=1",
    ],
)  # fmt: skip
def test_no_error_shows_a_secret(uri: str):
    text = str(UserError(f"door: cannot open '{uri}': refused"))
    assert "secret" not in text
    assert "cret" not in text
    assert text.endswith("': refused")
    assert "cam" in text


@pytest.mark.parametrize("access", ["read", "write", "none"])
def test_a_harness_gives_the_pixels_as_a_graph_does(access: Access):
    """A node that writes where it said that it reads fails in its test, not only in a graph."""

    class Draws(Sink):
        sink = pad("video/raw", format="BGR", access=access)

        def consume(self, buffer: Buffer) -> None:
            buffer.frame[0, 0] = 255

    frame = np.zeros((4, 6, 3), np.uint8)
    with Harness(Draws("draws")) as h:
        if access == "write":
            h.push(frame)
            assert frame[0, 0].tolist() == [255, 255, 255]
            return
        problem = (ValueError, "read-only") if access == "read" else (RuntimeError, "access='none'")
        with pytest.raises(problem[0], match=problem[1]):
            h.push(frame)
    assert not frame.any()
    assert frame.flags.writeable


class Still(Source):
    """A source whose frames are as a test wants them."""

    src = pad("video/raw", format="BGR")

    def __init__(self, more: object = True, **sets: object) -> None:
        super().__init__("still")
        self.more, self.sets = more, sets

    def open(self) -> VideoInfo:
        return VideoInfo(4, 6)

    def fill(self, buffer: Buffer) -> bool:
        buffer.frame[:2] = 0
        for name, value in self.sets.items():
            setattr(buffer, name, value)
        return self.more  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"pts": 0.5}, "a buffer's pts is 0.5"),
        ({"wall": -1}, "a buffer with a number out of range"),
        ({"meta": {"frame": object()}}, "a object cannot travel in a buffer"),
        ({"meta": {3: "no text"}}, "the key 3 in meta is no text"),
    ],
)
def test_what_a_graph_would_refuse_of_a_source_fails_in_its_test(sets: dict, message: str):
    with Harness(Still(**sets)) as h, pytest.raises((TypeError, ValueError), match=message):
        h.pull(1)


def test_what_a_source_does_not_write_is_seen_in_its_test():
    with Harness(Still()) as h:
        frames = [buffer.frame for buffer in h.pull(2)]
    for frame in frames:
        assert not frame[:2].any()
        assert frame[2:].all()
    assert (frames[0] == frames[1]).all()


def test_a_source_that_does_not_say_what_its_frames_look_like():
    class Silent(Still):
        def open(self):  # type: ignore[no-untyped-def]
            pass

    with pytest.raises(TypeError, match=r"open\(\) of Silent must return a VideoInfo, and returned None"):
        Harness(Silent())


def test_a_change_of_what_is_the_engines_fails_in_a_nodes_test():
    class Renumbers(Transform):
        sink = pad("ANY", access="none")
        src = pad("ANY")

        def transform(self, buffer: Buffer) -> Buffer:
            buffer.sequence += 1
            return buffer

    with Harness(Renumbers()) as h, pytest.raises(TypeError, match="a node may not change sequence of a buffer"):
        h.push()


def test_a_frame_that_a_test_did_not_push_is_not_blamed_on_the_pad():
    class Reads(Sink):
        sink = pad("video/raw", access="read")

        def consume(self, buffer: Buffer) -> None:
            buffer.frame.mean()

    with Harness(Reads()) as h, pytest.raises(RuntimeError, match="or a test pushed it so"):
        h.push()


@pytest.mark.parametrize(("more", "frames"), [(True, 1), (False, 0), (np.bool_(True), 1), (np.bool_(False), 0)])
def test_fill_says_whether_there_was_a_frame(more: object, frames: int):
    with Harness(Still(more)) as h:
        assert len(h.pull(1)) == frames


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        (None, "None"),
        (1, "1"),
        (0, "0"),
        ("yes", "'yes'"),
        (np.zeros((4, 6, 3), np.uint8), r"array\(\[\[\[0, .{,20}\)"),
    ],
)
def test_a_fill_that_does_not_say_whether_there_was_a_frame(more: object, shown: str):
    with Harness(Still(more)) as h, pytest.raises(TypeError, match=f"must return True, or False .* returned {shown}$"):
        h.pull(1)


def test_a_batch_node_may_take_buffers_out_of_its_list_as_in_a_graph():
    class Taker(BatchTransform):
        sink = pad("video/raw", access="none")
        src = pad("video/raw")

        def transform_batch(self, buffers: list[Buffer]) -> list[Buffer | None]:
            return [buffers.pop(0) for _ in range(len(buffers))]

    with Harness(Taker("n")) as h:
        assert len(h.push_all([h.buffer(), h.buffer()])) == 2
