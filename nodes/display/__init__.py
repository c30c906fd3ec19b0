"""emograph launch "testsrc ! haardetect ! emotion ! overlay ! display"

Shows all cameras in one window. Keys (`h` shows them: `keys.py`) stop the picture, step through the cameras, save a
still; `q`, Esc or closing the window ends the graph. Without a screen the node says so before anything starts: the
window library itself would abort the process.
"""

from __future__ import annotations

import contextlib
import os
import sys
from datetime import datetime
from pathlib import Path

import cv2
from pydantic import Field

from nodes.display import x11
from nodes.display.keys import action_of
from nodes.display.view import View
from pipeline import Buffer, Properties, Sink, UserError, pad
from pipeline.buffer import Mark

INSTEAD = "use videosink or webview instead"
NOTE_NS = 3_000_000_000
"""How long a note stands on the picture."""


class Display(Sink):
    """Shows all cameras in one resizable window; `h` shows its keys, `q`, Esc or closing it ends the graph."""

    sink = pad("video/raw", format="BGR", access="read")
    tick_interval = 1 / 30

    class Properties(Properties):
        title: str = Field("emograph", description="what the window's frame says")
        stills: str = Field(".", description="folder for the pictures that the key `s` saves")

    def open(self) -> None:
        self._view = View(self.streams)
        self._note_until = 0
        self._open = False
        with screen():
            try:
                cv2.namedWindow(self.name, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
                cv2.setWindowTitle(self.name, self.props.title)
            except cv2.error as error:
                raise UserError(f"cannot open a window: {error.err}; {INSTEAD}") from None
        self._open = True
        self._size = (0, 0)
        self._resize_window()

    def consume(self, buffer: Buffer) -> None:
        if not self._open:
            return
        self._view.show(buffer.stream, buffer.frame)

    def on_mark(self, mark: Mark) -> None:
        if mark.kind == "eos":
            self._view.mute(mark.stream, "ended")
        elif mark.kind == "status" and not mark.data.get("up"):
            self._view.mute(mark.stream, mark.data.get("reason") or "down")

    def tick(self) -> None:
        if not self._open:
            return
        if self._note_until and self.clock() > self._note_until:
            self._note_until = 0
            self._view.note("")
        if self._view.fresh:
            self._resize_window()
            cv2.imshow(self.name, self._view.picture())
        action = action_of(cv2.waitKeyEx(1))
        if not self._visible():
            self.quit()
        elif action is not None:
            getattr(self, action)()

    # Keys ----------------------------------------------------------------------------------------------

    def quit(self) -> None:
        self.close()
        self.request_stop("the window was closed")

    def pause(self) -> None:
        self._view.pause()

    def step_on(self) -> None:
        self._view.step(1)

    def step_back(self) -> None:
        self._view.step(-1)

    def show_all(self) -> None:
        self._view.show_all()

    def show_keys(self) -> None:
        self._view.toggle_help()

    def save(self) -> None:
        """Write the picture as it is, without notes; a folder that cannot be written to is no reason to stop."""
        at = datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
        path = Path(os.path.expanduser(self.props.stills)) / f"{self._view.name}-{at}.png"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(".png", self._view.plain)[1].tobytes())
        except OSError as error:
            self.log("warning", f"cannot save {path}: {error.strerror}")
            self._tell(f"not saved: {error.strerror}")
        else:
            self.log("info", f"saved {path}")
            self._tell(f"saved {path.name}")

    def _tell(self, text: str) -> None:
        self._view.note(text)
        self._note_until = self.clock() + NOTE_NS

    # Window --------------------------------------------------------------------------------------------

    def close(self) -> None:
        if self._open:
            self._open = False
            cv2.destroyAllWindows()
            cv2.waitKey(1)  # the window goes when its events are handled

    def _visible(self) -> bool:
        try:
            return cv2.getWindowProperty(self.name, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # what Qt says of a window that has been closed
            return False

    def _resize_window(self) -> None:
        """Where the picture has another size than before: Qt would stretch it into the window that is there."""
        if self._view.size != self._size:
            self._size = height, width = self._view.size
            cv2.resizeWindow(self.name, width, height)


def screen() -> contextlib.AbstractContextManager:
    """Holds the screen while a window is opened on it; UserError, in words that say what to do, if there is none."""
    framework = cv2.currentUIFramework() if hasattr(cv2, "imshow") else ""
    if not framework:
        raise UserError(
            f"this OpenCV has no windows: install opencv-python in place of opencv-python-headless, or {INSTEAD}"
        )
    if not sys.platform.startswith("linux"):
        return contextlib.nullcontext()
    display = os.environ.get("DISPLAY", "")
    qt = framework.startswith("QT")
    if qt:
        # OpenCV's wheels carry this one platform of Qt; asked for another, as many a desktop does, Qt aborts.
        os.environ["QT_QPA_PLATFORM"] = "xcb"
    if not display:
        if os.environ.get("WAYLAND_DISPLAY") and not qt:
            return contextlib.nullcontext()
        raise UserError(f"no screen: DISPLAY is not set; {INSTEAD}")
    try:
        return x11.connect(display)
    except x11.Refused as error:
        raise UserError(f"no screen: {error}; {INSTEAD}") from None
