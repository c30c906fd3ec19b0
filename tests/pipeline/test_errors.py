"""What a message may say, and how long it takes to see to that."""

from __future__ import annotations

import time

import pytest

from pipeline.errors import LONGEST, UserError, redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://me:pw@host/x", "rtsp://***@host/x"),
        ("see 'rtsp://me:p@w/d@host/x' there", "see 'rtsp://***@host/x' there"),
        ("1rtsp://me:pw@host", "1rtsp://***@host"),
        ("http://host/x?user=me&size=1;Token=abc", "http://host/x?user=***&size=1;Token=***"),
        ("http://host/?pwd=a=b&z=1", "http://host/?pwd=***&z=1"),
        ("http://host/?apikey=&z", "http://host/?apikey=***&z"),
        ("http://host/?url=/x?password=p1", "http://host/?url=/x?password=***"),
        ("http://host/?q=a?b=c?token=p9&z=1", "http://host/?q=a?b=c?token=***&z=1"),
        ("http://host/?pass=a?b", "http://host/?pass=***"),
        ("a mail to me@host and c://d", "a mail to me@host and c://d"),
    ],
)
def test_credentials_are_not_shown(text: str, shown: str):
    assert redact(text) == shown
    assert str(UserError(text)) == shown


@pytest.mark.parametrize(
    "piece", ["a", "a.+-", "a:/", "://", "http://", "http://h/?passpass", "http://h/?a=b&pass=", "@", "?", "http://a@"]
)
def test_long_text_takes_no_longer_for_each_letter(piece: str):
    """A message that froze the supervisor for minutes: what took the square of its length takes its length now."""

    def took(length: int) -> float:
        text = piece * (length // len(piece))
        begin = time.process_time()
        redact(text)
        return time.process_time() - begin

    took(1000)
    assert took(400_000) < 40 * max(took(40_000), 0.002)


def test_a_long_error_is_told_in_part():
    text = str(UserError("x" * 100_000))
    assert text.startswith("x" * LONGEST + "...")
    assert len(text) < LONGEST + 40
