"""The times of frames: a rate limit, the stamps of recordings, the clocks of cameras."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from nodes.capture.timeline import LiveTimeline, RateLimit, RecordedTimeline
from tests.nodes.captures import harness
from tests.nodes.films import assert_rising, grey


@pytest.mark.parametrize(
    ("fps", "stamps", "passed"),
    [
        (None, [0, 1, 1, 2], [0, 1, 1, 2]),
        (1, [0, 400, 999, 1000, 1500, 3000], [0, 1000, 3000]),
        (10, [0, 33, 67, 100, 133, 167, 200], [0, 100, 200]),
        (2, [700, 900, 1100], [700, 1100]),
    ],
)
def test_rate_limit(fps: float | None, stamps: list[int], passed: list[int]) -> None:
    limit = RateLimit(fps, 0)
    assert [s for s in stamps if limit.wants(s * 1_000_000)] == passed


@pytest.mark.parametrize(
    ("stamps", "times"),
    [
        ([0, 0, 0], [0, 40, 80]),  # a raw stream has none
        ([80, 120, 121], [80, 120, 121]),
        ([0, 17, 33, 33, 50, 67], [0, 17, 33, 41, 50, 67]),  # faster than its nominal 25 frames/s, one given twice
        ([0, 17, 33, 0, 50, 67], [0, 17, 33, 49, 50, 67]),  # one that is missing
        ([0, 17, 34, 17, 51, 68], [0, 17, 34, 42.5, 51, 68]),  # one that steps back
        ([0, 0, 17, 33, 50, 67], [0, 40, 48.5, 56.5, 65, 67]),
        ([0, 40, 40, 40, 1000], [0, 40, 60, 80, 1000]),
        ([0, 5000, 5000, 5001, 5100], [0, 5000, 5020, 5020.5, 5100]),  # a pause is no frame rate
        ([360, 400, 40, 80, 120], [360, 400, 440, 480, 520]),  # two that were joined
    ],
)
def test_a_recordings_times_are_its_stamps_wherever_they_rise(stamps: list[float], times: list[float]) -> None:
    timeline = RecordedTimeline(40_000_000)
    assert [timeline.at(round(stamp * 1_000_000)) / 1e6 for stamp in stamps] == times


def test_one_stamp_given_twice_does_not_delay_the_rest(tmp_path: Path) -> None:
    path, ticks = tmp_path / "a.mkv", [round(n * 1000 / 60) for n in range(60)]
    ticks[20] = ticks[19]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=25)  # the header's rate; the stamps say 60
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        packets = [
            packet
            for index in range(60)
            for packet in stream.encode(av.VideoFrame.from_ndarray(grey(index), format="bgr24"))
        ]
        for packet, tick in zip(packets + stream.encode(), ticks, strict=True):
            packet.pts = packet.dts = tick
            packet.time_base = Fraction(1, 1000)
            out.mux(packet)
    with harness(path) as h:
        pts = [b.pts // 1_000_000 for b in h.pull(99)]
    assert_rising(pts)
    assert pts[:20] + pts[21:] == ticks[:20] + ticks[21:]


def ms(timeline: LiveTimeline, now: float, stamp: float | None) -> float:
    return timeline.pts(round(now * 1e6), None if stamp is None else round(stamp * 1e6)) / 1e6


def test_live_times_are_the_cameras_own() -> None:
    """Jitter of the network does not show, nor does the burst that a camera sends first."""
    timeline = LiveTimeline()
    for index in range(30):
        ms(timeline, 5000, 900 + 40 * index)
    late = [0, 25, 3, 17, 0, 30]
    times = [ms(timeline, 5040 + 40 * i + late[i % 6], 2100 + 40 * i) for i in range(60)]
    assert np.diff(times[1:]) == pytest.approx(np.full(58, 40), abs=0.2)


@pytest.mark.parametrize("stamps", [[0, 40, 0, 40, 80], [0, 40, 900_000, 900_040, 900_080], [None] * 5])
def test_live_times_rise_with_the_clock_whatever_the_stamps(stamps: list[float | None]) -> None:
    timeline = LiveTimeline()
    times = [ms(timeline, 7000 + 3000 * i, stamp) for i, stamp in enumerate(stamps)]
    assert times == [0, 3000, 6000, 9000, 12000]
    timeline.reconnected()
    assert ms(timeline, 27000, 0) == 20000
    assert ms(timeline, 27000, 0) > 20000  # never the same twice


def test_live_times_go_on_where_another_process_left_off() -> None:
    timeline = LiveTimeline((5_000_000_000, 90_000_000_000))
    assert [ms(timeline, 90000 + 40 * i, 700 + 40 * i) for i in range(1, 4)] == [5040, 5080, 5120]
    timeline = LiveTimeline((5_000_000_000, 90_000_000_000))
    assert ms(timeline, 90000, 700) > 5000  # never the same twice


def test_live_times_after_a_short_absence() -> None:
    timeline = LiveTimeline()
    assert ms(timeline, 7000, 100) == 0
    timeline.reconnected()
    assert ms(timeline, 8000, 700) == 1000  # not 600: the stamps have another origin now


def test_live_times_follow_a_slow_camera_clock() -> None:
    timeline = LiveTimeline()
    for index in range(20000):  # 1 ms in 10 s, at 25 frames/s
        last = ms(timeline, 40.004 * index, 40 * index)
    assert 40.004 * 19999 - last < 10
