"""What the keys of the window do: one table for the node, for the help in the window and for the docs."""

from __future__ import annotations

from typing import NamedTuple

ESCAPE, HOME, LEFT, RIGHT = 27, 0xFF50, 0xFF51, 0xFF53
"""As OpenCV's `waitKeyEx` gives them on X11 (X keysyms), with Qt and GTK."""


class Key(NamedTuple):
    """shown: as a person calls them. action: method of `Display`."""

    shown: str
    codes: tuple[int, ...]
    action: str
    does: str


def _letters(*letters: str) -> tuple[int, ...]:
    return tuple(ord(letter) for letter in letters)


KEYS = (
    Key("space", _letters(" "), "pause", "stand still, go on (the graph never stops)"),
    Key("right  n", (RIGHT, *_letters("n")), "step_on", "next camera, full size"),
    Key("left  p", (LEFT, *_letters("p")), "step_back", "previous camera"),
    Key("Home  0  m", (HOME, *_letters("0", "m")), "show_all", "all cameras"),
    Key("s", _letters("s"), "save", "save the picture as PNG"),
    Key("h  ?", _letters("h", "?"), "show_keys", "show or hide these keys"),
    Key("q  Esc", (ESCAPE, *_letters("q")), "quit", "close the window, end the graph"),
)
ACTIONS = {code: key.action for key in KEYS for code in key.codes}


def action_of(code: int) -> str | None:
    """The action for what `waitKeyEx` returned, None for no key and for one that does nothing."""
    return ACTIONS.get(code & 0xFFFF)  # above are shift, num lock and the like
