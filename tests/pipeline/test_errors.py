"""What a message may say, and how long it takes to see to that."""

from __future__ import annotations

import time

import pytest

from pipeline.errors import LONGEST, UserError, redact, redact_setting


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
        ("rtsp://me:it's5ecret@host/x", "rtsp://***@host/x"),
        ("""is "rtsp://me:it's"5ecret@host/x": no""", """is "rtsp://***@host/x": no"""),
        ("'http://h/?pwd=it's5ecret': no", "'http://h/?pwd=***': no"),
        (
            "rtsp://h/user=me_password=5ecret_x_channel=1_s=0.sdp?real",
            "rtsp://h/user=***_password=***_channel=1_s=0.sdp?real",
        ),
        ("http://h/?auth_code=5ecret&user_id=me", "http://h/?auth_code=***&user_id=***"),
        (
            "http://host/?sig=p1&X-Auth=p2&login=p3;client_secret=p4&usr=p5",
            "http://host/?sig=***&X-Auth=***&login=***;client_secret=***&usr=***",
        ),
        ("http://h/live?token=AbC9xYz_qRsTuv=", "http://h/live?token=***"),
        ("http://h/?access_token=eyJh_bGciOi==&x=1", "http://h/?access_token=***&x=1"),
        ("http://h/token=AbC9xYz_qRsTuv==", "http://h/token=***"),
        ("http://h/?password=abc_def=ghi", "http://h/?password=***"),
        ("http://h/token=5ec/ret==", "http://h/token=***"),
    ],
)
def test_credentials_are_not_shown(text: str, shown: str):
    assert redact(text) == shown
    assert str(UserError(text)) == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("uri", "rtsp://me:my 5ecret word@host/x", "rtsp://***@host/x"),
        ("uri", "clips/my film.mp4", "clips/my film.mp4"),
        ("uris", ["a", "rtsp://me:pw@host"], ["a", "rtsp://***@host"]),
        *((name, "5ecret", "***") for name in ("token", "credentials", "api_key", "key", "secret", "auth", "pwd")),
        ("keyframes", "5", "5"),
        ("tokens", ["a", "b"], ["***", "***"]),
        ("broker", {"host": "mqtt", "password": "5ecret", 1: "x"}, {"host": "mqtt", "password": "***", 1: "x"}),
        ("token", "", ""),
        ("fps", 5, 5),
    ],
)
def test_settings_are_shown_without_credentials(name: str, value: object, shown: object):
    assert redact_setting(name, value) == shown


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "a.+-",
        "a:/",
        "://",
        "http://",
        "http://h/?passpass",
        "http://h/?a=b&pass=",
        "@",
        "?",
        "http://a@",
        "http://h/pw=_a",
        "a=",
        "=_",
        "/a_",
    ],
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
