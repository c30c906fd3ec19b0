"""display: a window where there is a screen, one line where there is none, and never an abort.

What needs a screen runs in a process of its own under Xvfb: Qt ends its process when the X server goes.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from nodes.display import Display, x11
from nodes.display.keys import KEYS, action_of
from nodes.display.view import View
from pipeline import Harness, UserError

ROOT = Path(__file__).parents[2]
ACCEPT = struct.pack("<BxHHH", 1, 11, 0, 0)
COOKIE = bytes(range(16))


# Without a screen ------------------------------------------------------------------------------------------


def refused(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as error:
        Harness(Display())
    return str(error.value)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "no screen: DISPLAY is not set"),
        ({"DISPLAY": ""}, "no screen: DISPLAY is not set"),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "no screen: DISPLAY is not set"),
        ({"DISPLAY": ":4711"}, "no screen: no X server answers at DISPLAY=:4711 (No such file or directory)"),
        ({"DISPLAY": "localhost:9.0"}, "no screen: no X server answers at DISPLAY=localhost:9.0 (Connection refused)"),
        ({"DISPLAY": "my..host:0"}, "no screen: DISPLAY is 'my..host:0', which names no host"),
        ({"DISPLAY": "nonsense"}, "no screen: DISPLAY is 'nonsense', which names no display"),
    ],
)  # fmt: skip
def test_without_a_screen_it_says_so(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], reason: str) -> None:
    assert refused(monkeypatch, **environment) == f"{reason}; use videosink or webview instead"


def test_an_opencv_without_windows_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "")
    assert "install opencv-python in place of opencv-python-headless" in refused(monkeypatch, DISPLAY=":0")
    monkeypatch.delattr(cv2, "imshow")
    assert "this OpenCV has no windows" in refused(monkeypatch, DISPLAY=":0")


@pytest.fixture
def x_server() -> Iterator[tuple[str, list[bytes], list[bytes]]]:
    """(DISPLAY, replies, requests): a server that answers each connection with the next of `replies`."""
    replies: list[bytes] = []
    requests: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    held = []

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            requests.append(client.recv(1000))
            client.sendall(replies.pop(0))
            held.append(client)

    threading.Thread(target=serve, daemon=True).start()
    yield f"localhost:{listener.getsockname()[1] - 6000}", replies, requests
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for client in held:
        client.close()


def test_a_server_that_refuses_is_quoted(monkeypatch: pytest.MonkeyPatch, x_server) -> None:
    display, replies, _ = x_server
    reason = b"No protocol specified\n"
    replies.append(struct.pack("<BBHHH", 0, len(reason), 11, 0, 6) + reason)
    said = refused(monkeypatch, DISPLAY=display, HOME="/nowhere")
    assert said.startswith("no screen: the X server refused: No protocol specified;")


def test_a_server_that_does_not_answer_is_given_up(x_server) -> None:
    display, replies, _ = x_server
    replies.append(b"")
    with pytest.raises(x11.Refused, match=r"no X server answers at DISPLAY=.* \(timed out\)"):
        x11.connect(display, timeout=0.2)


def authority(*entries: tuple[int, bytes, bytes, bytes, bytes]) -> bytes:
    def field(value: bytes) -> bytes:
        return struct.pack(">H", len(value)) + value

    return b"".join(struct.pack(">H", family) + b"".join(map(field, rest)) for family, *rest in entries)


@pytest.mark.parametrize(
    ("family", "address", "own_display", "found"),
    [
        (x11.FAMILY_LOCAL, socket.gethostname().encode(), True, True),
        (x11.FAMILY_LOCAL, b"another-host", True, False),
        (x11.FAMILY_ANY, b"", True, True),
        (x11.FAMILY_IPV4, bytes([127, 0, 0, 1]), True, True),
        (x11.FAMILY_IPV4, bytes([10, 0, 0, 1]), True, False),
        (x11.FAMILY_ANY, b"", False, False),
    ],
)
def test_the_cookie_of_this_display_is_sent(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    x_server,
    family: int,
    address: bytes,
    own_display: bool,
    found: bool,
) -> None:
    display, replies, requests = x_server
    number = display.partition(":")[2].encode() if own_display else b"3"
    file = tmp_path / "authority"
    other = (x11.FAMILY_ANY, b"", b"99", x11.COOKIE, bytes(16))
    file.write_bytes(
        authority(
            other,
            (family, address, number, b"XDM-AUTHORIZATION-1", b"no"),
            (family, address, number, x11.COOKIE, COOKIE),
        )
    )
    monkeypatch.setenv("XAUTHORITY", str(file))
    replies.append(ACCEPT)
    x11.connect(display).close()
    name = x11.COOKIE if found else b""
    head = struct.pack("<BxHHHHxx", ord("l"), 11, 0, len(name), 16 if found else 0)
    assert requests == [head + (name + b"\0\0" + COOKIE if found else b"")]


@pytest.mark.parametrize("content", [b"\1", b"\1\0\0\5ab", bytes(3)])
def test_a_damaged_authority_file_is_no_cookie(monkeypatch, tmp_path: Path, x_server, content: bytes) -> None:
    display, replies, requests = x_server
    (tmp_path / "authority").write_bytes(content)
    monkeypatch.setenv("XAUTHORITY", str(tmp_path / "authority"))
    replies.append(ACCEPT)
    x11.connect(display).close()
    assert len(requests[0]) == 12


# With a screen ---------------------------------------------------------------------------------------------


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """(environment, file with what is on the screen) of an X server that wants a cookie."""
    for tool in ("Xvfb", "xdotool"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed (Debian package {tool.lower()})")
    cookies = tmp_path / "cookies"
    cookies.write_bytes(authority((x11.FAMILY_ANY, b"", b"", x11.COOKIE, COOKIE)))
    read, write = os.pipe()
    # A number of this process's own: two servers that look for a free one at the same time may take the same, and the
    # window is then on the other's screen. -r: on a busy machine a key may be down for so long that it would repeat.
    own = f":{100 + os.getpid() % 50_000}"
    command = ["Xvfb", own, "-r", "-displayfd", str(write), "-screen", "0", "1280x800x24", "-nolisten", "tcp"]
    server = subprocess.Popen(
        [*command, "-auth", str(cookies), "-fbdir", str(tmp_path)], pass_fds=[write], stderr=subprocess.DEVNULL
    )
    os.close(write)
    with os.fdopen(read) as pipe:
        number = pipe.readline().strip()
    assert number, "Xvfb did not start"
    shown = tmp_path / "Xvfb_screen0"
    yield {**os.environ, "DISPLAY": f":{number}", "XAUTHORITY": str(cookies), "FRAMEBUFFER": str(shown)}, shown
    server.terminate()
    server.wait()


GREEN, BLUE, RED, PAPER = (20, 220, 30), (200, 60, 10), (0, 0, 255), (28, 22, 20)
"""The cameras `desk` and `door`, `door` of later, and what notes are written on. BGR."""


def screenshot(xwd: bytes) -> np.ndarray:
    """Pixels, uint8 BGR (H, W, 3), of an X window dump (XWDFile.h: 25 words, window name, colour map, pixels)."""
    words = struct.unpack(">25I", xwd[:100])
    header, width, height, row, colours = words[0], words[4], words[5], words[12], words[19]
    start = header + 12 * colours
    pixels = np.frombuffer(xwd, np.uint8, row * height, start).reshape(height, row // 4, 4)
    return pixels[:, :width, :3]


def share(pixels: np.ndarray, colour: tuple[int, int, int]) -> float:
    """Of all pixels that are not black, how many have this colour; 0 if all are black."""
    lit = pixels.max(axis=2) > 0
    return (lit & (np.abs(pixels.astype(int) - colour).max(axis=2) <= 2)).sum() / max(1, lit.sum())


SCRIPT = """
import json, os, subprocess, sys, time
import cv2, numpy as np
from nodes import display
from nodes.display import Display
from pipeline import Harness, UserError
from tests.nodes.test_display import BLUE, GREEN, PAPER, RED, press_close, screenshot, share, what_is_shown

colour = {"door": BLUE, "desk": GREEN}

def frames(h, seconds=0.0):
    end = time.monotonic() + seconds
    while True:
        for stream in h.node.streams:
            h.push(np.full((240, 320, 3), colour[stream], np.uint8), stream=stream)
        h.tick()
        if time.monotonic() >= end:
            return

def press(h, key):
    # A real key press: X server, Qt, OpenCV and back. Waits until the node has acted on it.
    acted = []
    original = display.action_of
    display.action_of = lambda code: (action := original(code)) and acted.append(action) or action
    window = subprocess.run(["xdotool", "search", "--name", "^two cameras$"], check=True, capture_output=True, text=True).stdout.split()[0]
    subprocess.run(["xdotool", "windowfocus", "--sync", window, "key", key], check=True)
    end = time.monotonic() + 20
    while not acted and h.stop_reason is None:
        frames(h)
        assert time.monotonic() < end, f"{key} did nothing"
    display.action_of = original

def shoot(name, shown=np.any):
    # The screen as it is when `shown` is true of its pixels: a busy machine paints when it can. After 20 s as it is.
    end = time.monotonic() + 20
    while True:
        frames(h, 0.2)
        dump = open(os.environ["FRAMEBUFFER"], "rb").read()
        if shown(screenshot(dump)) or time.monotonic() > end:
            open(os.path.join(os.environ["SHOTS"], name + ".xwd"), "wb").write(dump)
            return

def show(h):
    # Without a window manager, and on a busy machine, Qt misses now and then that its window is on the screen, and paints
    # nothing, whatever its size becomes. What tells it again is what a window manager would do.
    end = time.monotonic() + 2
    frames(h, 0.5)
    while not screenshot(open(os.environ["FRAMEBUFFER"], "rb").read()).any():
        frames(h, 0.1)
        if time.monotonic() > end:
            window = subprocess.run(["xdotool", "search", "--name", "^two cameras$"], check=True, capture_output=True, text=True).stdout.split()[0]
            subprocess.run(["xdotool", "windowunmap", "--sync", window, "windowmap", "--sync", window], check=True)
            end = time.monotonic() + 2

result = {}
try:
    with Harness(Display(title="two cameras", PROPERTIES), streams=("door", "desk")) as h:
        show(h)
        BODY
        result["stopped"] = h.stop_reason
except UserError as error:
    result["error"] = str(error)
print(json.dumps(result))
"""


def run(environment: dict[str, str], body: str, properties: str = "") -> dict:
    """What the script with `body` in it says; it must end by itself."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("BODY", body).replace("PROPERTIES", properties)],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def shots(screen, folder: Path, body: str) -> dict[str, np.ndarray]:
    """The pictures that `shoot("name")` in `body` took of the screen, by name."""
    environment, framebuffer = screen
    environment = {**environment, "FRAMEBUFFER": str(framebuffer), "SHOTS": str(folder)}
    assert run(environment, body) == {"stopped": None}
    return {path.stem: screenshot(path.read_bytes()) for path in folder.glob("*.xwd")}


def test_all_cameras_are_on_the_screen(screen, tmp_path: Path) -> None:
    pixels = shots(screen, tmp_path, "shoot('all', lambda p: min(share(p, BLUE), share(p, GREEN)) > 0.4)")["all"]
    for colour in (BLUE, GREEN):
        covers = (np.abs(pixels.astype(int) - colour).max(axis=2) <= 2).sum() / (240 * 320)
        assert 0.9 < covers < 1.1, f"{colour} covers {covers:.2f} of a frame"


@pytest.mark.parametrize("key", ["q", "Escape"])
def test_q_and_escape_close_the_window_and_stop_the_graph(screen, key: str) -> None:
    assert run(screen[0], f"press(h, {key!r})") == {"stopped": "the window was closed"}


def what_is_shown(pixels: np.ndarray) -> str:
    blue, green = share(pixels, BLUE), share(pixels, GREEN)
    if min(blue, green) > 0.4:
        return "both"
    return "door" if blue > 0.95 else "desk" if green > 0.95 else f"blue {blue:.2f}, green {green:.2f}"


def test_keys_step_through_the_cameras_and_back(screen, tmp_path: Path) -> None:
    pressed = ["Right", "n", "n", "Left", "p", "m", "Left", "Home", "n", "0"]
    expected = ["door", "desk", "door", "desk", "door", "both", "desk", "both", "door", "both"]
    body = "; ".join(
        f"press(h, {key!r}); shoot('{number}', lambda p: what_is_shown(p) == {what!r})"
        for number, (key, what) in enumerate(zip(pressed, expected, strict=True))
    )
    shown = shots(screen, tmp_path, body)
    assert [what_is_shown(shown[str(number)]) for number in range(len(expected))] == expected


def test_space_holds_the_picture_and_not_the_graph(screen, tmp_path: Path) -> None:
    body = (
        "shoot('before', lambda p: share(p, BLUE) > 0.4); press(h, 'space'); colour['door'] = RED; "
        "shoot('paused', lambda p: share(p, PAPER) > 0.002); press(h, 'n'); "
        "shoot('door', lambda p: share(p, BLUE) > 0.9); press(h, 'm'); press(h, 'space'); "
        "shoot('after', lambda p: share(p, RED) > 0.4)"
    )
    shown = shots(screen, tmp_path, body)
    red = {name: share(pixels, RED) for name, pixels in shown.items()}
    assert red["before"] == red["paused"] == red["door"] == 0
    assert red["after"] > 0.4
    assert share(shown["paused"], BLUE) > 0.4
    assert share(shown["door"], BLUE) > 0.9
    assert share(shown["paused"], PAPER) > 0.002, "it does not say that it is paused"


def test_h_shows_the_keys(screen, tmp_path: Path) -> None:
    body = (
        "press(h, 'h'); shoot('keys', lambda p: share(p, PAPER) > 0.1); "
        "press(h, 'question'); shoot('none', lambda p: p.any() and share(p, PAPER) == 0)"
    )
    shown = shots(screen, tmp_path, body)
    assert share(shown["keys"], PAPER) > 0.1
    assert what_is_shown(shown["none"]) == "both"
    assert share(shown["none"], PAPER) == 0


def test_s_saves_what_is_shown(screen, tmp_path: Path) -> None:
    stills = tmp_path / "new" / "stills"
    body = "press(h, 's'); press(h, 'n'); press(h, 'h'); press(h, 's')"
    assert run(screen[0], body, f"stills={str(stills)!r}") == {"stopped": None}
    mosaic, door = sorted(stills.iterdir(), reverse=True)
    assert re.fullmatch(r"mosaic-\d{8}-\d{6}-\d{3}\.png", mosaic.name)
    assert re.fullmatch(r"door-\d{8}-\d{6}-\d{3}\.png", door.name)
    both, one = cv2.imread(str(mosaic)), cv2.imread(str(door))
    assert both.shape == (240, 640, 3)
    assert one.shape == (240, 320, 3)
    assert share(both, GREEN) == 0.5
    assert share(one, BLUE) == 1  # without the keys that were on the screen


def test_a_folder_that_cannot_be_written_to_is_a_warning(screen, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    body = "press(h, 's'); frames(h, 0.2); result['logs'] = h.logs"
    said = run(screen[0], body, f"stills={str(tmp_path / 'file')!r}")
    assert said["stopped"] is None
    [[level, text]] = said["logs"]
    assert level == "warning"
    assert text.startswith(f"cannot save {tmp_path}/file/mosaic-")


def test_nothing_is_written_unasked(screen, tmp_path: Path) -> None:
    run(screen[0], "press(h, 'space'); press(h, 'n')", f"stills={str(tmp_path / 'stills')!r}")
    assert not (tmp_path / "stills").exists()


def test_every_key_does_something_of_its_own() -> None:
    codes = [code for key in KEYS for code in key.codes]
    assert len(codes) == len(set(codes))
    assert all(callable(getattr(Display, key.action)) for key in KEYS)
    assert action_of(-1) is None
    assert action_of(ord("x")) is None
    assert action_of(0x100000 | ord("s")) == "save"  # num lock


def test_a_camera_that_went_during_a_pause_is_gone_after_it() -> None:
    view = View(("door", "desk"))
    for stream in view.streams:
        view.show(stream, np.full((240, 320, 3), 200, np.uint8))
    view.pause()
    view.mute("door", "no answer")
    view.mute("desk", "no answer")
    view.show("desk", np.full((240, 320, 3), 100, np.uint8))  # it came back
    assert (view.plain == 200).all()
    view.pause()
    assert view.plain[5, 5].max() < 100
    assert (view.plain[:, 320:] == 200).all()
    view.step(1)
    assert view.plain.shape == (240, 320, 3)
    assert view.plain[5, 5].max() < 100


def test_closing_the_window_stops_the_graph(screen) -> None:
    """With the message that a window manager sends when its close button is pressed."""
    if not ctypes.util.find_library("X11"):
        pytest.skip("libX11 is not installed (Debian package libx11-6)")
    body = "press_close('two cameras'); frames(h, 0.5)"
    assert run(screen[0], body) == {"stopped": "the window was closed"}


def press_close(title: str) -> None:
    """Send WM_DELETE_WINDOW to the top window with this title (ICCCM 4.2.8.1)."""
    xlib = ctypes.CDLL(ctypes.util.find_library("X11"))
    pointer, number = ctypes.c_void_p, ctypes.c_ulong
    xlib.XOpenDisplay.restype = pointer
    xlib.XDefaultRootWindow.restype = xlib.XInternAtom.restype = number

    class ClientMessage(ctypes.Structure):
        _fields_ = (
            ("type", ctypes.c_int), ("serial", number), ("sent", ctypes.c_int), ("display", pointer),
            ("window", number), ("message", number), ("format", ctypes.c_int), ("data", number * 5),
            ("rest", number * 24),
        )  # fmt: skip

    display = pointer(xlib.XOpenDisplay(None))
    root, count = number(xlib.XDefaultRootWindow(display)), ctypes.c_uint()
    windows, ignored = ctypes.POINTER(number)(), (number(), number())
    xlib.XQueryTree(display, root, *map(ctypes.byref, (*ignored, windows, count)))
    for window in windows[: count.value]:
        name = ctypes.c_char_p()
        xlib.XFetchName(display, number(window), ctypes.byref(name))
        if name.value == title.encode():
            protocols, delete = (xlib.XInternAtom(display, atom, 0) for atom in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW"))
            event = ClientMessage(33, 0, 1, display, window, protocols, 32, (delete,))
            xlib.XSendEvent(display, number(window), 0, number(0), ctypes.byref(event))
    xlib.XSync(display, 0)


def test_another_platform_of_qt_in_the_environment_does_not_abort(screen) -> None:
    assert run({**screen[0], "QT_QPA_PLATFORM": "wayland"}, "pass") == {"stopped": None}


def test_a_missing_cookie_is_an_error_and_no_abort(screen, tmp_path: Path) -> None:
    said = run({**screen[0], "XAUTHORITY": str(tmp_path / "none")}, "pass")
    assert said["error"].startswith("no screen: the X server refused: Authorization required")
