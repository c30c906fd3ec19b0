"""Hysteresis: which changes are told of one camera's faces, and when."""

import pytest

from nodes.changes import Changes, Moment
from pipeline import Region

MS = 1_000_000


def face(what: str, track: int | None = 1) -> Region:
    """`happy.9` is a face that is happy with probability 0.9, else sad; `-` one that nothing classified."""
    if what == "-":
        return Region((1, 2, 3, 4), track=track)
    label, _, probability = what.partition(".")
    p = float(f"0.{probability or 9}")
    scores = {"happy": p, "sad": 1 - p} if label == "happy" else {"sad": p, "happy": 1 - p}
    return Region((1, 2, 3, 4), track=track, label=label, scores=scores)


def run(script: str, *, hold: int = 200, margin: float = 0.05, gone_after: int = 400) -> list[str]:
    """One word a frame, 100 ms apart: a face, `.` for none; returns `time what label` of what is told."""
    changes = Changes(hold * MS, margin, gone_after * MS)
    told = []
    for number, word in enumerate(script.split()):
        at = number * 100
        regions = [] if word == "." else [face(word)]
        news = changes.frame(regions, Moment(at * MS, at * MS, at * MS))
        told += [f"{at} {change['what']} {change['label']}" for change in news]
    return told


@pytest.mark.parametrize(
    ("script", "options", "told"),
    [
        ("happy happy happy", {}, ["0 appeared happy"]),
        ("happy sad happy sad happy sad", {}, ["0 appeared happy"]),  # flickering is no change
        ("happy sad sad sad sad", {}, ["0 appeared happy", "300 changed sad"]),
        ("happy sad sad happy sad sad sad", {}, ["0 appeared happy", "600 changed sad"]),  # it starts anew
        ("happy sad happy", {"hold": 0}, ["0 appeared happy", "100 changed sad", "200 changed happy"]),
        ("happy sad.51 sad.51 sad.51 sad.51", {}, ["0 appeared happy"]),  # ahead by 0.02 only
        ("happy sad.51 sad.51 sad.51 sad.51", {"margin": 0.01}, ["0 appeared happy", "300 changed sad"]),
        ("happy sad sad.51 sad sad sad", {}, ["0 appeared happy", "500 changed sad"]),  # the margin all the time
        ("happy uncertain uncertain uncertain", {}, ["0 appeared happy", "300 changed uncertain"]),
        ("uncertain happy happy happy", {}, ["0 appeared uncertain", "300 changed happy"]),
        ("- happy", {}, ["0 appeared None", "100 changed happy"]),  # the first reading waits for nothing
        ("happy - - - -", {}, ["0 appeared happy"]),  # no reading is no change
        ("happy sad . sad sad", {}, ["0 appeared happy", "300 changed sad"]),  # a missed frame breaks nothing
        ("happy . . . happy", {}, ["0 appeared happy"]),
        ("happy . . . . .", {}, ["0 appeared happy", "400 left happy"]),
        ("happy . . . . happy", {}, ["0 appeared happy", "400 left happy", "500 appeared happy"]),
    ],
)
def test_what_is_told(script, options, told):
    assert run(script, **options) == told


def test_times_say_when_it_began_and_how_long_it_had_lasted():
    changes = Changes(200 * MS, 0.05, 400 * MS)
    told = []
    for number, word in enumerate(["happy", "happy", "sad", "sad", "sad", ".", ".", ".", "."]):
        at = number * 100 * MS
        regions = [] if word == "." else [face(word)]
        told += changes.frame(regions, Moment(at, 5_000_000 * MS + at, 7000 * MS + at))
    figures = [(t["what"], t["previous"], t["since_ns"] // MS, t["since_pts_ns"] // MS, t["duration_ns"]) for t in told]
    assert figures == [
        ("appeared", None, 5_000_000, 7000, None),
        ("changed", "happy", 5_000_200, 7200, 200 * MS),
        ("left", None, 5_000_400, 7400, 400 * MS),
    ]


def test_each_face_counts_for_itself_and_untracked_ones_not_at_all():
    changes = Changes(0, 0, 100 * MS)
    now = Moment(0, 0, 0)
    first = changes.frame([face("happy", 1), face("sad", 2), face("sad", None)], now)
    assert [(c["track"], c["label"]) for c in first] == [(1, "happy"), (2, "sad")]
    later = changes.frame([face("sad", 1), face("sad", 3)], Moment(100 * MS, 0, 0))
    assert [(c["what"], c["track"]) for c in later] == [("changed", 1), ("appeared", 3), ("left", 2)]
    assert [(c["what"], c["track"], c["label"]) for c in changes.present()] == [
        ("present", 1, "sad"),
        ("present", 3, "sad"),
    ]
    assert [(c["what"], c["track"]) for c in changes.leave()] == [("left", 1), ("left", 3)]
    assert changes.present() == changes.leave() == []


def test_a_stream_that_begins_anew_leaves_no_ghosts():
    changes = Changes(0, 0, 100 * MS)
    changes.frame([face("happy", 1)], Moment(10_000 * MS, 0, 0))
    told = changes.frame([face("happy", 2)], Moment(0, 0, 0))
    assert [(c["what"], c["track"]) for c in told] == [("left", 1), ("appeared", 2)]


@pytest.mark.parametrize(
    ("region", "score"),
    [(face("happy.8"), 0.8), (face("uncertain.6"), 0.6), (face("-"), None)],
)
def test_score_is_the_labels_probability(region, score):
    (change,) = Changes(0, 0, 0).frame([region], Moment(0, 0, 0))
    assert change["score"] == score


def test_a_change_tells_where_the_face_is_now():
    changes, told = Changes(0, 0, 100 * MS), []
    for number, word in enumerate(["happy", "happy", "sad"]):
        region = face(word)
        region.box = (10 * number, 2, 3, 4)
        told += changes.frame([region], Moment(number * 100 * MS, 0, 0))
    told += changes.present()
    assert [(c["what"], c["box"][0]) for c in told] == [("appeared", 0), ("changed", 20), ("present", 20)]


def test_a_face_without_a_reading_keeps_its_last_probabilities():
    changes = Changes(0, 0, 100 * MS)
    changes.frame([face("happy.8")], Moment(0, 0, 0))
    changes.frame([face("-")], Moment(50 * MS, 0, 0))
    (present,), (left,) = changes.present(), changes.leave()
    assert [(c["label"], c["score"]) for c in (present, left)] == [("happy", 0.8)] * 2
