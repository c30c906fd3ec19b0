"""Sends a graph's events to an MQTT broker, as JSON: emograph/<camera>/change (a face has come, changed its expression
or gone) and emograph/<camera>/status (the camera is up, down or has ended).

uv run --with paho-mqtt python docs/examples/mqtt_bridge.py BROKER [tcp://127.0.0.1:5556]

Needs paho-mqtt 2 and a graph with `publish`. Runs until Ctrl-C; both sides are connected again by themselves.
"""

import json
import sys
from contextlib import suppress

import paho.mqtt.client as mqtt  # pyright: ignore[reportMissingImports]

from pipeline import subscribe

broker = sys.argv[1]
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.on_connect = lambda client, data, flags, answer, properties: print(f"{broker}: {answer}", file=sys.stderr)
client.on_connect_fail = lambda client, data: print(f"{broker}: no answer", file=sys.stderr)
client.max_queued_messages_set(1000)  # for a broker that is away; by itself paho keeps all, for ever
client.connect_async(broker)  # client.username_pw_set(...) before this, if the broker wants a password
client.loop_start()
with suppress(KeyboardInterrupt):
    for event in subscribe(sys.argv[2] if len(sys.argv) > 2 else "tcp://127.0.0.1:5556", kinds=["change", "status"]):
        fields = {"time": event.time.isoformat(), "what": event.what, "snapshot": event.snapshot}
        if event.kind == "change":
            fields |= {"track": event.track, "label": event.label, "score": event.score, "previous": event.previous}
        else:
            fields |= {"reason": event.reason}
        client.publish(f"emograph/{event.camera}/{event.kind}", json.dumps(fields), qos=1)
with suppress(KeyboardInterrupt):  # a second one, while the last messages go out
    client.disconnect()
    client.loop_stop()
