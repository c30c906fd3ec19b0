"""Reads emograph's events with pyzmq and msgpack alone: python subscriber.py tcp://127.0.0.1:5556 [PREFIX]"""

import json
import sys
import time

import msgpack
import zmq

began = time.time_ns()
prefix = sys.argv[2] if len(sys.argv) > 2 else "emotion/"  # or "emotion/door/", "emotion/door/change"
socket = zmq.Context().socket(zmq.SUB)
socket.subscribe(prefix)
socket.connect(sys.argv[1])

last = {}  # sequence number by topic and publisher
ended = set()  # cameras
while True:
    topic, payload = socket.recv_multipart()
    event = msgpack.unpackb(payload)
    if event["version"] != 1:
        sys.exit(f"protocol version {event['version']} is not known here")
    key = topic, event["run"]
    was_there = (event.get("run_ns") or 0) > began  # when the run began; else this program joined it later
    before = last.get(key, 0 if was_there else event["sequence"])
    event["lost"] = max(0, event["sequence"] - before - (not event["snapshot"]))
    last[key] = event["sequence"]
    print(json.dumps(event), flush=True)
    if event["kind"] == "status":
        (ended.add if event["what"] == "ended" else ended.discard)(event["camera"])
        cameras = event.get("cameras") or [event["camera"]]  # all of them; some are not for this prefix
        if all(name in ended for name in cameras if f"emotion/{name}/status".startswith(prefix)):
            break
