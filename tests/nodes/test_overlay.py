"""overlay: what is drawn, where, in which colour, at every frame size."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest

from nodes.lettering import CAP, LIGHT, shorten, text_size, text_width
from nodes.overlay import Overlay
from nodes.overlay.look import COLOURS, Look, colour_of, ink
from nodes.overlay.notes import Chip, Note, Panel
from nodes.overlay.placement import Rect, place
from nodes.preprocess import LABELS
from pipeline import Harness, Region

SIZES = [(120, 160), (240, 320), (480, 640), (1080, 1920), (640, 360), (2160, 3840)]
BACKGROUND = 93


def region(box, label="happy", probability=0.75, track: int | None = 3) -> Region:
    scores = dict.fromkeys(LABELS, (1 - probability) / 6)
    if label in scores:
        scores[label] = probability
    return Region(tuple(map(float, box)), 5.0, track, label, scores if label else None)


def blank(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), BACKGROUND, np.uint8)


def draw(frame: np.ndarray, regions: list[Region], stream: str = "door", old: float = 0.047, **props) -> np.ndarray:
    """`frame` as it comes out of the node; a copy goes in."""
    with Harness(Overlay(**props), streams=(stream,)) as h:
        buffer = h.buffer(frame.copy(), regions=regions)
        h.clock += old
        return h.push_all([buffer])[0].frame


def faces_on(height: int, width: int) -> list[Region]:
    """Faces side by side, near each other and over the edges of the frame."""
    side = min(height, width) * 0.22
    spots = [(0.3, 0.3), (0.5, 0.32), (-0.04, -0.05), (0.9, -0.03), (0.93, 0.85), (0.02, 0.9)]
    labels = ["happy", "sad", "uncertain", "surprise", "fear", "neutral"]
    return [
        region((x * width, y * height, side, side), label, 0.6 + 0.05 * n, n)
        for n, ((x, y), label) in enumerate(zip(spots, labels, strict=True))
    ]


def picture(thing: Chip | Note | Panel) -> np.ndarray:
    width, height = thing.size
    canvas = np.full((height, width, 3), BACKGROUND, np.uint8)
    thing.draw(canvas, 0, 0)
    return canvas


def is_complete(thing: Chip | Note | Panel, at: Rect, frame: np.ndarray) -> bool:
    """Whether `thing` can be seen in the frame, all of it but the corners, through which the frame shows."""
    expected = picture(thing)
    seen = frame[max(at.top, 0) : at.bottom, max(at.left, 0) : at.right]
    inner = np.s_[thing.look.radius : -thing.look.radius, thing.look.radius : -thing.look.radius]
    return seen.shape == expected.shape and np.array_equal(seen[inner], expected[inner])


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Chip | Note | Panel, Rect]]:
    """All that a node writes from now on, and where."""
    things: list[tuple[Chip | Note | Panel, Rect]] = []
    for cls in (Chip, Note, Panel):

        def recording(self, frame, x, y, draw=cls.draw):
            rect = draw(self, frame, x, y)
            if frame.shape[:2] != self.size[::-1]:  # not a picture of the thing alone
                things.append((self, rect))
            return rect

        monkeypatch.setattr(cls, "draw", recording)
    return things


def texts(drawn: list[tuple[Chip | Note | Panel, Rect]]) -> list[str]:
    return [" ".join(t.words) if isinstance(t, Note) else t.text if isinstance(t, Chip) else "bars" for t, _ in drawn]


def bare(**props) -> dict:
    """Properties that draw boxes and nothing else, but for `props`."""
    return {"labels": False, "camera": False, "latency": False, "bars": "none"} | props


# The node --------------------------------------------------------------------------------------------------


def test_draws_in_place_and_changes_no_metadata() -> None:
    frame = blank(480, 640)
    regions = faces_on(480, 640)
    before = [r.pack() for r in regions]
    with Harness(Overlay(bars="all")) as h:
        (out,) = h.push(frame, regions=regions)
    assert out.frame is frame
    assert not np.array_equal(frame, blank(480, 640))
    assert [r.pack() for r in out.regions] == before


@pytest.mark.parametrize("label", [*LABELS, "uncertain", None, "cat"])
def test_the_box_has_the_colour_of_its_label(label: str | None) -> None:
    frame = draw(blank(480, 640), [region((200, 150, 100, 120), label)], **bare())
    colour = COLOURS.get(label, LIGHT) if label else LIGHT
    for x, y in ((250, 150), (250, 269), (200, 210), (299, 210)):
        assert tuple(frame[y, x]) == colour
    assert (frame[170:250, 220:280] == BACKGROUND).all(), "the face itself stays visible"
    assert (frame[:140] == BACKGROUND).all()


@pytest.mark.parametrize(
    ("meta", "dark"),
    [
        ({}, []),
        ({"roi": [(0, 0, 320, 480), (300, 0, 400, 480)]}, [np.s_[:, 400:]]),
        ({"ignore": [(0, 0, 64, 48)]}, [np.s_[:48, :64]]),
        ({"roi": [(0, 0, 320, 480)], "ignore": [(0, 0, 64, 48)]}, [np.s_[:, 320:], np.s_[:48, :64]]),
    ],
)
def test_what_the_detector_leaves_out_is_darkened(meta: dict, dark: list) -> None:
    for wanted in (False, True):
        with Harness(Overlay(roi=wanted, **bare())) as h:
            (out,) = h.push(blank(480, 640), regions=[], meta=meta)
        expected = blank(480, 640)
        for part in dark if wanted else []:
            expected[part] = np.array(BACKGROUND) // 2
        assert np.abs(out.frame.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("thickness", [0, 1, 9])
def test_thickness_is_the_width_of_the_line(thickness: int) -> None:
    frame = draw(blank(480, 640), [region((200, 150, 100, 120))], **bare(thickness=thickness))
    line = (frame[210, 180:240] == COLOURS["happy"]).all(axis=1).sum()
    assert line == (thickness or Look.of(480, 640).line)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("bars", ["top", "all"])
def test_labels_are_complete_and_legible_at_every_size(drawn, height: int, width: int, bars: str) -> None:
    """Every note, the name and the latency are inside the frame, not covered, and large enough to read."""
    regions = faces_on(height, width)
    noise = np.random.default_rng(0).integers(60, 120, (height, width, 3)).astype(np.uint8)
    frame = draw(noise, regions, bars=bars)
    assert {"door", "47 ms"} < set(texts(drawn))
    notes = [thing for thing, _ in drawn if isinstance(thing, Note)]
    for note, given in zip(notes, regions, strict=True):
        assert note.words[0] == given.label or (width == 160 and note.words[0] == "uncert…")
    assert all(is_complete(thing, at, frame) for thing, at in drawn)
    look = Look.of(height, width)
    assert look.text * CAP >= 7
    assert look.text >= 0.03 * min(height, width) - 1


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 8), (24, 32), (10, 400), (400, 10)])
@pytest.mark.parametrize("bars", ["top", "all"])
@pytest.mark.parametrize("blur", [False, True])
def test_frames_too_small_for_text_get_what_fits(size: tuple[int, int], bars: str, blur: bool) -> None:
    height, width = size
    draw(
        blank(height, width),
        [region((0, 0, width, height)), region((width / 2, 0, width, height))],
        bars=bars,
        blur=blur,
    )


@pytest.mark.parametrize(
    "box",
    [
        (math.nan, 0, 10, 10), (0, 0, math.inf, 10), (5, 5, 0, 10), (5, 5, 10, -3), (700, 5, 20, 20),
        (-50, 5, 20, 20), (5, 1e30, 20, 20), (10, 10, 0.2, 0.2),
    ],
)  # fmt: skip
def test_a_box_outside_the_frame_is_not_drawn(box) -> None:
    assert (draw(blank(480, 640), [region(box)], **bare(labels=True, bars="all", blur=True)) == BACKGROUND).all()


def test_a_huge_box_is_the_frame() -> None:
    frame = draw(blank(480, 640), [region((-1e30, -1e30, 2e30, 2e30))], **bare())
    assert tuple(frame[0, 320]) == tuple(frame[479, 320]) == COLOURS["happy"]


# Labels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words", "track"),
    [
        (region((0, 0, 9, 9), "happy", 0.93, 7), ["happy", "93%"], "#7"),
        (region((0, 0, 9, 9), "happy", 0.93, None), ["happy", "93%"], ""),
        (Region((0, 0, 9, 9), 1.0, 7, "uncertain", {"sad": 0.3, "fear": 0.4}), ["uncertain", "40%"], "#7"),
        (Region((0, 0, 9, 9), 1.0, 0, "sad"), ["sad"], "#0"),
        (Region((0, 0, 9, 9), 1.0, 7), [], "#7"),
        (Region((0, 0, 9, 9), 1.0, None), [], ""),
        (Region((0, 0, 9, 9), 1.0, None, "sad", {"sad": math.nan}), ["sad", "0%"], ""),
        (Region((0, 0, 9, 9), 1.0, None, "sad", {"sad": 1.7}), ["sad", "100%"], ""),
        (Region((0, 0, 9, 9), 1.0, None, "sad", {}), ["sad"], ""),
    ],
)
def test_what_a_note_says(given: Region, words: list[str], track: str) -> None:
    note = Note(given, Look.of(480, 640), 640, bar=True)
    assert (note.words, note.track) == (words, track)
    assert (note.size[0] == 0) == (not words and not track)
    draw(blank(480, 640), [given])


def test_a_note_without_room_keeps_what_matters_most() -> None:
    look = Look.of(120, 160)
    says = []
    for room in (200, 80, 50, 30):
        note = Note(region((0, 0, 9, 9), "surprise", 0.5, 12), look, room, bar=True)
        assert note.size[0] <= room
        says.append((note.words, note.track))
    assert says == [(["surprise", "50%"], "#12"), (["surprise", "50%"], ""), (["surprise"], ""), ([says[3][0][0]], "")]
    assert says[3][0][0].endswith("…")


@pytest.mark.parametrize(
    ("switched_on", "expected"),
    [
        ({}, []),
        ({"labels": True}, ["happy 75%"]),
        ({"camera": True}, ["door"]),
        ({"latency": True}, ["47 ms"]),
        ({"bars": "all"}, ["bars"]),
        ({"bars": "top"}, []),
    ],
)
def test_each_text_can_be_switched_on_and_off(drawn, switched_on: dict, expected: list[str]) -> None:
    frame = draw(blank(480, 640), [region((200, 200, 100, 100))], **bare(**switched_on))
    assert texts(drawn) == expected
    assert all(is_complete(thing, at, frame) for thing, at in drawn)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 ms"), (0.0474, "47 ms"), (1.24, "1.2 s"), (95.3, "95 s"), (-0.5, "0 ms")]
)
def test_latency_is_the_age_by_the_nodes_clock(drawn, seconds: float, text: str) -> None:
    draw(blank(480, 640), [], **bare(latency=True), old=seconds)
    assert texts(drawn) == [text]
    (_, at), *_ = drawn
    assert at.left > 320
    assert at.top > 240


def test_a_long_camera_name_is_shortened(drawn) -> None:
    name = "the-camera-above-the-door-of-the-lobby" * 5
    frame = draw(blank(240, 320), [], stream=name)
    latency, short = texts(drawn)
    assert latency == "47 ms"
    assert short.endswith("…")
    assert name.startswith(short[:-1])
    assert len(short) > 20
    assert all(is_complete(thing, at, frame) for thing, at in drawn)


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.5, 1.0])
def test_the_bar_is_as_long_as_the_probability(probability: float) -> None:
    look = Look.of(2160, 3840)
    note = Note(region((0, 0, 9, 9), "happy", probability, None), look, 3000, bar=True)
    row = picture(note)[note.size[1] - look.gap]
    length = (row == ink(COLOURS["happy"])).all(axis=1).sum()
    assert length == pytest.approx(probability * (note.split - 2 * look.gap), abs=1)
    assert Note(region((0, 0, 9, 9)), look, 3000, bar=False).size[1] < note.size[1]


def test_all_bars_show_every_label(drawn) -> None:
    scores = {label: (n + 1) / 10 for n, label in enumerate(LABELS)}
    frame = draw(blank(480, 640), [Region((200, 150, 120, 120), 5.0, 1, "neutral", scores)], **bare(bars="all"))
    ((panel, at),) = drawn
    assert is_complete(panel, at, frame)
    for n, label in enumerate(LABELS):
        row = frame[at.top + panel.edge + n * panel.step + panel.step // 2, at.left : at.right]
        length = (row == colour_of(label)).all(axis=1)[-panel.length - panel.edge :].sum()
        assert length == pytest.approx(scores[label] * panel.length, abs=1)


def test_the_panel_is_compact_where_there_is_little_room() -> None:
    face = region((0, 0, 9, 9))
    look = Look.of(120, 160)
    small, large = (Panel(face, look, room) for room in (120 * 160 // 4, 10**6))
    assert small.names == 0 < large.names
    assert small.size[0] * small.size[1] < 120 * 160 / 12


# Colours ---------------------------------------------------------------------------------------------------

# Machado, Oliveira and Fernandes 2009, table 1, severity 1.0; on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(bgr: tuple[int, int, int]) -> np.ndarray:
    value = np.array(bgr[::-1]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def cielab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    x, y, z = np.cbrt(np.maximum(to_xyz @ np.clip(rgb, 0, 1) / [0.95047, 1, 1.08883], 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
def test_labels_can_be_told_apart_by_colour_by_everybody(sight: str) -> None:
    seen = {label: cielab(SIGHT[sight] @ linear(colour)) for label, colour in COLOURS.items()}
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) >= 20, f"{one} and {other} look the same ({sight})"


@pytest.mark.parametrize("label", COLOURS)
def test_text_is_read_on_its_colour(label: str) -> None:
    """WCAG 2's contrast ratio for text, level AA."""
    weights = [0.2126, 0.7152, 0.0722]
    dark, light = sorted(float(weights @ linear(c)) for c in (COLOURS[label], ink(COLOURS[label])))
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_every_label_has_a_colour() -> None:
    assert set(COLOURS) == {*LABELS, "uncertain"}


# Blur ------------------------------------------------------------------------------------------------------


def test_blur_leaves_a_few_flat_blocks_of_a_face() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (480, 640, 3)).astype(np.uint8)
    frame = draw(noise, [region((200, 150, 120, 120))], **bare(blur=True))
    face = frame[165:255, 215:305]
    assert len(np.unique(face.reshape(-1, 3), axis=0)) <= 36
    outside = np.ones((480, 640), bool)
    outside[130:290, 180:340] = False  # the face and a sixth around it
    assert np.array_equal(frame[outside], noise[outside])


def test_blur_makes_two_faces_with_the_same_blocks_the_same() -> None:
    """Nothing finer than the blocks gets through: detail that averages out leaves no trace."""
    flat = blank(480, 640)
    striped = flat.copy()
    striped[::2] += 60
    striped[1::2] -= 60
    a, b = (draw(f, [region((192, 144, 120, 120))], **bare(blur=True))[160:250, 210:300] for f in (flat, striped))
    assert np.abs(a.astype(int) - b).max() <= 2


def test_blur_reaches_faces_at_the_edge_and_overlapping_ones() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (480, 640, 3)).astype(np.uint8)
    frame = draw(noise, [region((-40, -40, 120, 120)), region((20, 20, 100, 100))], **bare(blur=True))
    assert len(np.unique(frame[:50, :50].reshape(-1, 3), axis=0)) < 100


# Placement -------------------------------------------------------------------------------------------------

FRAME = (480, 640)
BOX = Rect(200, 150, 300, 250)


@pytest.mark.parametrize(
    ("box", "taken", "beside", "expected"),
    [
        (BOX, [], False, (200, 130)),
        (BOX, [Rect(200, 130, 280, 150)], False, (200, 250)),  # above is taken: below
        (BOX, [Rect(0, 100, 640, 150), Rect(0, 250, 640, 300)], False, (300, 150)),  # both are: right
        (BOX, [], True, (300, 150)),
        (Rect(200, 0, 300, 100), [], False, (200, 100)),  # no room above: below
        (Rect(560, 150, 640, 250), [], False, (560, 130)),
        (Rect(600, 150, 640, 250), [], False, (560, 130)),  # moved in from the edge
        (Rect(540, 150, 640, 250), [], True, (460, 150)),  # no room on the right: left
    ],
)
def test_where_a_label_goes(box: Rect, taken: list[Rect], beside: bool, expected: tuple[int, int]) -> None:
    assert place((80, 20), box, [box], taken, FRAME, beside) == (*expected, True)


def test_a_label_goes_further_away_rather_than_onto_another() -> None:
    around = BOX.grown(60)
    x, y, clear = place((80, 20), BOX, [BOX], [around], FRAME)
    assert clear
    assert not (x < around.right and x + 80 > around.left and y < around.bottom and y + 20 > around.top)


def test_labels_never_leave_the_frame_and_overlap_only_when_told() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        boxes = [Rect.at(*rng.integers(-50, 600, 2).tolist(), *rng.integers(1, 200, 2).tolist()) for _ in range(8)]
        taken: list[Rect] = []
        for box in boxes:
            width, height = rng.integers(1, 200), rng.integers(1, 60)
            x, y, clear = place((int(width), int(height)), box, boxes, taken, FRAME)
            assert 0 <= x <= 640 - width
            assert 0 <= y <= 480 - height
            new = Rect.at(x, y, int(width), int(height))
            overlaps = any(
                new.left < t.right and t.left < new.right and new.top < t.bottom and t.top < new.bottom for t in taken
            )
            assert overlaps != clear
            taken.append(new)


# Text ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width", "size"), [(120, 160, 10), (480, 640, 14), (2160, 3840, 65), (1, 1, 10)])
def test_text_grows_with_the_frame(height: int, width: int, size: int) -> None:
    assert text_size(height, width) == size


def test_text_that_does_not_fit_is_shortened() -> None:
    assert shorten("surprise", 14, 1000) == "surprise"
    short = shorten("surprise", 14, 40)
    assert short.startswith("su")
    assert short.endswith("…")
    assert text_width(short, 14) <= 40
    assert shorten("surprise", 14, 3) == ""


def test_a_text_is_as_long_as_its_room_and_is_not_rendered_at_every_length(monkeypatch) -> None:
    measured: list[str] = []
    monkeypatch.setattr("nodes.lettering.text_width", lambda text, size: measured.append(text) or 10 * len(text))
    assert shorten("x" * 5000, 10, 405) == "x" * 39 + "…"
    assert len(measured) < 40


def test_drawing_needs_neither_torch_nor_a_second_ffmpeg() -> None:
    code = (
        "import sys, nodes.overlay, nodes.display, nodes.fakesink, nodes.mosaic;"
        "print([m for m in ('torch', 'av', 'matplotlib', 'pandas') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_blur_reaches_a_sixth_beyond_the_face() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (480, 640, 3)).astype(np.uint8)
    frame = draw(noise, [region((200, 150, 120, 120))], **bare(blur=True))
    around = np.zeros((480, 640), bool)
    around[131:289, 181:339] = True
    around[140:280, 190:330] = False  # the face, and the box that is drawn around it
    assert (frame[around] != noise[around]).any(axis=1).mean() > 0.99
