"""emograph launch "testsrc ! haardetect ! emotion ! overlay ! display"

Shows all cameras in one window. `q`, Esc or closing the window stops the graph. Without a screen it says so before
anything starts: the window library itself would abort the process.
"""

from __future__ import annotations

import contextlib
import os
import sys

import cv2
from pydantic import Field

from nodes.display import x11
from nodes.mosaic import Mosaic, cell_size
from pipeline import Buffer, Properties, Sink, UserError, pad
from pipeline.buffer import Mark

INSTEAD = "use videosink or webview instead"
ESCAPE = 27


class Display(Sink):
    """Shows all cameras in one resizable window; `q`, Esc or closing it stops the graph."""

    sink = pad("video/raw", format="BGR", access="read")
    tick_interval = 1 / 30

    class Properties(Properties):
        title: str = Field("emograph", description="what the window's frame says")

    def open(self) -> None:
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._mosaic = Mosaic(self.streams, (360, 640))
        self._fresh = True
        self._open = False
        with screen():
            try:
                cv2.namedWindow(self.name, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
                cv2.setWindowTitle(self.name, self.props.title)
            except cv2.error as error:
                raise UserError(f"cannot open a window: {error.err}; {INSTEAD}") from None
        self._open = True
        self._resize_window()

    def consume(self, buffer: Buffer) -> None:
        if not self._open:
            return
        self._shapes[buffer.stream] = buffer.frame.shape
        cell = cell_size(self._shapes.values(), len(self.streams))
        if cell != self._mosaic.cell:
            self._mosaic.resize(cell)
            self._resize_window()
        self._mosaic.show(buffer.stream, buffer.frame)
        self._fresh = True

    def on_mark(self, mark: Mark) -> None:
        if mark.kind == "eos":
            self._mosaic.mute(mark.stream, "ended")
        elif mark.kind == "status" and not mark.data.get("up"):
            self._mosaic.mute(mark.stream, mark.data.get("reason") or "down")
        self._fresh = True

    def tick(self) -> None:
        if not self._open:
            return
        if self._fresh:
            cv2.imshow(self.name, self._mosaic.canvas)
            self._fresh = False
        key = cv2.waitKey(1) & 0xFF
        if key in (ESCAPE, ord("q")) or not self._visible():
            self.close()
            self.request_stop("the window was closed")

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
        height, width = self._mosaic.canvas.shape[:2]
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
