"""What the page's timelines are made of: bounded, thin, and never mixed up."""

from __future__ import annotations

from nodes.webview.history import History

NOW = 10**15
"""UTC ns at which all events come; they differ in how old they are."""


def observed(at: float, *tracks: int, camera: str = "door", labels: tuple[str, ...] = ("happy", "sad")) -> dict:
    region = {"label": labels[0], "score": 0.5, "box": [0, 0, 1, 1], "probabilities": dict.fromkeys(labels, 0.5)}
    regions = [{**region, "track": track} for track in tracks]
    return {
        "kind": "observation",
        "camera": camera,
        "time_ns": 0,  # by the camera's host, whatever its clock says
        "latency_ns": NOW - int(at * 1e9),
        "width": 64,
        "height": 48,
        "regions": regions,
    }


def appeared(track: int, what: str = "appeared") -> dict:
    return {"kind": "change", "camera": "door", "what": what, "track": track}


def test_history_is_bounded_in_time_and_thin():
    history = History(10, lambda: NOW)
    history.see(appeared(1))
    for n in range(3000):  # 100 seconds at 30 frames/s
        history.see(observed(n / 30, 1))
    samples, _ = history.since(0)
    assert 18 <= len(samples) <= 21
    assert samples[-1].at - samples[0].at <= 10_000


def test_history_goes_on_where_a_viewer_was():
    history = History(5, lambda: NOW)
    history.see(appeared(1))
    position, seen = 0, []
    for second in range(20):
        history.see(observed(second, 1))
        samples, position = history.since(position)
        seen += [sample.at for sample in samples]
    assert seen == [second * 1000 for second in range(20)]
    assert [sample.at for sample in history.since(0, limit=2)[0]] == [14_000, 15_000]  # who was away too long


def test_a_track_id_that_is_used_again_is_another_face():
    history = History(100, lambda: NOW)
    for second, events in enumerate([[appeared(1)], [], [appeared(1, "left"), appeared(1)], []]):
        for event in events:
            history.see(event)
        history.see(observed(second, 1))
    assert [sample.visit for sample in history.since(0)[0]] == [1, 1, 2, 2]


def test_another_models_labels_begin_a_new_history():
    history = History(100, lambda: NOW)
    history.see(appeared(1))
    history.see(observed(1, 1))
    _, position = history.since(0)
    history.see(observed(2, 1, labels=("yes", "no")))
    samples, _ = history.since(position)
    assert history.labels == ("yes", "no")
    assert [sample.label for sample in samples] == [sample.label for sample in history.since(0)[0]] == ["yes"]


def test_nobody_is_in_view_of_a_camera_that_is_down():
    history = History(100, lambda: NOW)
    history.see({**observed(1), "regions": observed(1, 7)["regions"]})  # not followed: nobody says that it left
    assert history.faces["door"]["faces"]
    history.see({"kind": "status", "camera": "door", "what": "down"})
    assert history.faces == {}


def test_history_begins_anew_when_the_clock_is_set_back():
    history = History(600, lambda: NOW)
    history.see(appeared(1))
    for second in range(7200, 7300):
        history.see(observed(second, 1))
    _, position = history.since(0)
    for second in range(3600, 3700):
        history.see(observed(second, 1))
    samples, _ = history.since(position)
    assert [sample.at for sample in samples] == [second * 1000 for second in range(3600, 3700)]
    assert history.since(0)[0] == samples


def test_of_two_models_at_a_time_the_first_one_is_drawn():
    """Their probabilities cannot stand in one picture, and it must not begin anew at each of their frames."""
    history = History(100, lambda: NOW)
    for camera in ("door", "desk"):
        history.see({**appeared(1), "camera": camera})
    for second in range(10):
        history.see(observed(second, 1))
        history.see({**observed(second, 1, labels=("yes", "no")), "camera": "desk"})
    assert {sample.camera for sample in history.since(0)[0]} == {"door"}
    assert len(history.since(0)[0]) == 10
    face = history.faces["desk"]["faces"][0]
    assert (face["label"], face["probabilities"]) == ("yes", [])
    history.see(observed(10, 1, labels=("yes", "no")))  # now both have the new one
    assert history.labels == ("yes", "no")
    assert len(history.since(0)[0]) == 1
