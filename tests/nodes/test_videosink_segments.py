"""videosink in segments: where one ends, how it is called, which are kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from nodes.videosink import VideoSink
from pipeline import GraphError, Harness, UserError
from pipeline.graph import expand
from pipeline.load import load
from tests.nodes.recordings import MS, SECOND, clip, read

WALL = 1_795_976_100 * SECOND
"""UTC ns of 2026-11-29 18:15:00."""


def record(seconds: float, streams: tuple[str, ...] = ("door",), **properties: object) -> Harness:
    """So much of 10 frames/s from each camera, captured from WALL on."""
    frames = clip(count=10, height=48, width=64)
    with Harness(VideoSink(**properties), streams=streams) as h:
        for n in range(round(seconds * 10)):
            for stream in streams:
                buffer = h.buffer(frames[n % 10], stream=stream, pts=5 * SECOND + n * 100 * MS)
                buffer.wall = WALL + n * 100 * MS
                h.push_all([buffer])
    return h


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_each_segment_is_a_file_of_its_own_and_no_frame_is_missing(tmp_path: Path) -> None:
    h = record(5, location=f"{tmp_path}/rec.mp4", segment=2)
    written = ["rec-20261129T181500Z.mp4", "rec-20261129T181502Z.mp4", "rec-20261129T181504Z.mp4"]
    assert names(tmp_path) == written
    assert [len(read(tmp_path / name)[0]) for name in written] == [20, 20, 10]
    assert [text for _, text in h.logs if "wrote" in text] == [
        f"wrote {tmp_path / written[0]}: 20 frames, 2.00 s",
        f"wrote {tmp_path / written[1]}: 20 frames, 2.00 s",
        f"wrote {tmp_path / written[2]}: 10 frames, 1.00 s",
    ]


def test_the_newest_of_each_camera_are_kept_those_of_earlier_runs_counted(tmp_path: Path) -> None:
    others = ["door-holiday.mp4", "door-20200101T000000Z.mkv", "my-door-20200101T000000Z.mp4", "notes.txt"]
    old = ["door-20200101T000000Z.mp4", *(f"door-20261129T181459Z{n}.mp4" for n in ("", "-2", "-9", "-10"))]
    for name in (*others, *old):
        (tmp_path / name).touch()
    record(5, ("door", "desk"), location=f"{tmp_path}/{{camera}}-{{time}}.mp4", segment=2, keep=4)
    kept = ["door-20261129T181459Z-10.mp4", *(f"door-20261129T18150{second}Z.mp4" for second in (0, 2, 4))]
    desk = [f"desk-20261129T18150{second}Z.mp4" for second in (0, 2, 4)]
    assert names(tmp_path) == sorted([*others, *kept, *desk])


def test_the_segment_that_is_written_stays_when_the_clock_was_set_back(tmp_path: Path) -> None:
    (tmp_path / "a-20991231T235959Z.mp4").touch()
    record(1, location=f"{tmp_path}/a.mp4", segment=10, keep=1)
    assert names(tmp_path) == ["a-20261129T181500Z.mp4"]


@pytest.mark.parametrize("location", ["{time}.mp4", "{time}-{camera}.mp4", "{camera}-{time}.mp4"])
def test_cameras_whose_names_end_in_numbers_keep_their_own(tmp_path: Path, location: str) -> None:
    h = record(5, ("door-2", "door"), location=f"{tmp_path}/{location}", segment=1, keep=2)
    assert len(names(tmp_path)) == 4
    assert sum(re.search(r"door-2[-.]", name) is not None for name in names(tmp_path)) == 2
    assert sum(text.startswith("deleted ") for level, text in h.logs if level == "info") == 6


def test_segments_that_begin_in_one_second_stay_in_their_order(tmp_path: Path) -> None:
    """A recording is read in less time than it lasts. What was deleted gives no name free."""
    frames = clip(count=10, height=48, width=64)
    with Harness(VideoSink(location=f"{tmp_path}/a.mp4", segment=1, keep=2)) as h:
        for n in range(80):
            buffer = h.buffer(frames[n % 10], pts=n * 100 * MS)
            buffer.wall = WALL
            h.push_all([buffer])
    assert names(tmp_path) == ["a-20261129T181500Z-7.mp4", "a-20261129T181500Z-8.mp4"]


def test_the_graph_s_own_recording_is_not_deleted(tmp_path: Path) -> None:
    recording = tmp_path / "door-20260101T000000Z.mp4"
    recording.touch()
    graph = f"capture uri={recording} ! videosink location={tmp_path}/door.mp4 segment=5s"
    expand(load(graph))
    with pytest.raises(GraphError, match=f"{recording}"):
        expand(load(f"{graph} keep=1"))


def test_what_is_kept_may_have_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    location = f"{tmp_path}/rec/{{camera}}.mp4"
    expand(load(f"testsrc ! videosink location={location} segment=5s keep=1"))
    record(1, location=location, segment=5, keep=1)
    assert names(tmp_path / "rec") == ["door-20261129T181500Z.mp4"]


@pytest.mark.parametrize(
    ("properties", "pts", "lengths"),
    [
        ({"fps": 5}, range(0, 3000, 100), [10, 10, 10]),  # of the file's own rate
        ({}, [*range(0, 1500, 100), *range(0, 1500, 100)], [20, 10]),  # the source began anew
        ({}, [0] * 60, [50, 10]),  # a source without times: 25 a second
    ],
)
def test_a_segment_is_as_long_as_its_file_plays(
    tmp_path: Path, properties: dict, pts: Sequence[int], lengths: list[int]
) -> None:
    frames = clip(count=10, height=48, width=64)
    with Harness(VideoSink(location=f"{tmp_path}/a.mkv", segment=2, **properties)) as h:
        for n, at in enumerate(pts):
            h.push(frames[n % 10], pts=at * MS)
    order = sorted(tmp_path.iterdir(), key=lambda path: (len(path.name), path.name))
    assert [len(read(path)[0]) for path in order] == lengths


def test_what_cannot_be_deleted_is_told(tmp_path: Path) -> None:
    (tmp_path / "a-20200101T000000Z.mp4").mkdir()
    h = record(1, location=f"{tmp_path}/a.mp4", segment=10, keep=1)
    assert ("warning", f"cannot delete {tmp_path}/a-20200101T000000Z.mp4: Is a directory") in h.logs


def test_a_file_named_by_its_time_replaces_none(tmp_path: Path) -> None:
    for _ in range(2):
        record(1, location=f"{tmp_path}/{{time}}.mkv", overwrite=False)
    assert names(tmp_path) == ["20261129T181500Z-2.mkv", "20261129T181500Z.mkv"]


def test_a_mosaic_has_segments_too(tmp_path: Path) -> None:
    frames = clip(count=10, height=48, width=64)
    with Harness(
        VideoSink(location=f"{tmp_path}/all.mkv", mosaic=True, fps=10, segment=2), streams=("a", "b"), lossless=True
    ) as h:
        for n in range(50):
            for stream in ("a", "b"):
                h.push(frames[n % 10], stream=stream, pts=n * 100 * MS)
        for stream in ("a", "b"):
            h.mark("eos", stream)
    lengths = [len(read(path)[0]) for path in sorted(tmp_path.iterdir())]
    assert sum(lengths) == 50
    assert max(lengths) == 20


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"segment": 0.5}, "a segment has 1 s or more; 0: one file until the end"),
        ({"keep": 3}, "'keep' counts segments, and there is no 'segment'"),
    ],
)
def test_properties_that_do_not_go_together(properties: dict, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        VideoSink(location="a.mp4", **properties)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("{time}/a.mp4", "{time} belongs into the name of the file, not of its folder"),
        ("{date}.mp4", "names {date}; only {camera} and {time} are known"),
        ("{time}-{time}.mp4", "names {time} twice"),
    ],
)
def test_locations_that_cannot_be(tmp_path: Path, location: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        record(1, location=f"{tmp_path}/{location}")
    assert message in str(error.value)
