"""Sends a graph's changes of expression to an MQTT broker, as JSON on the topic emograph/<camera>/change.

uv run --with paho-mqtt python docs/examples/mqtt_bridge.py BROKER [tcp://127.0.0.1:5556]

Needs paho-mqtt 2 and a graph with `publish`. Runs until Ctrl-C; both sides are connected again by themselves.
"""

import json
import sys
from contextlib import suppress

import paho.mqtt.client as mqtt  # pyright: ignore[reportMissingImports]

from pipeline import subscribe

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.connect_async(sys.argv[1])  # client.username_pw_set(...) before this, if the broker wants a password
client.loop_start()
with suppress(KeyboardInterrupt):
    for event in subscribe(sys.argv[2] if len(sys.argv) > 2 else "tcp://127.0.0.1:5556", kinds=["change"]):
        fields = {"time": event.time.isoformat(), "what": event.what, "track": event.track, "label": event.label}
        fields |= {"score": event.score, "previous": event.previous, "snapshot": event.snapshot}
        client.publish(f"emograph/{event.camera}/{event.kind}", json.dumps(fields), qos=1)
with suppress(KeyboardInterrupt):  # a second one, while the last messages go out
    client.disconnect()
    client.loop_stop()
