"""source -> hop -> hop -> sink in processes of their own, over raw pyzmq, imagezmq or multiprocessing.Queue.

    python bench/peers/chain.py pyzmq FOLDER/MARKS SECONDS CAMERAS FPS

Each as its documentation shows it, with as many frames on the way as emograph has slots where it can be told.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from typing import Any

import numpy as np
from meter import HEIGHT, SLOTS, WIDTH, Meter, first_moment, pace, touch

LINKS = 3
PER_LINK = SLOTS // LINKS
Frame = Any
"""What a transport hands out and takes again; `pixels` makes an array of it."""


class Pyzmq:
    """PUSH and PULL over ipc, two parts, no copies in Python."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def sender(self, link: int) -> Any:
        import zmq

        socket = zmq.Context.instance().socket(zmq.PUSH)
        socket.setsockopt(zmq.SNDHWM, PER_LINK // 2)
        socket.connect(f"ipc://{self.folder}/{link}")
        return lambda header, frame: socket.send_multipart([header.encode(), frame], copy=False)

    def receiver(self, link: int) -> Any:
        import zmq

        socket = zmq.Context.instance().socket(zmq.PULL)
        socket.setsockopt(zmq.RCVHWM, PER_LINK - PER_LINK // 2)
        socket.bind(f"ipc://{self.folder}/{link}")

        def receive() -> tuple[str, Frame]:
            header, frame = socket.recv_multipart(copy=False)
            return bytes(header.buffer).decode(), frame

        return receive

    @staticmethod
    def pixels(frame: Frame) -> np.ndarray:
        return np.frombuffer(frame.buffer, np.uint8).reshape(HEIGHT, WIDTH, 3)


class Imagezmq:
    """Its default, REQ and REP: each image is acknowledged before the next one is sent."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def sender(self, link: int) -> Any:
        import imagezmq

        return imagezmq.ImageSender(connect_to=f"ipc://{self.folder}/{link}").send_image

    def receiver(self, link: int) -> Any:
        import imagezmq

        hub = imagezmq.ImageHub(open_port=f"ipc://{self.folder}/{link}")

        def receive() -> tuple[str, Frame]:
            header, frame = hub.recv_image()
            hub.send_reply(b"OK")
            return header, frame

        return receive

    @staticmethod
    def pixels(frame: Frame) -> np.ndarray:
        return frame


class Queue:
    """multiprocessing.Queue: pickled into a pipe."""

    def __init__(self, folder: str) -> None:
        self.queues = [multiprocessing.Queue(PER_LINK) for _ in range(LINKS)]

    def sender(self, link: int) -> Any:
        return lambda header, frame: self.queues[link].put((header, frame))

    def receiver(self, link: int) -> Any:
        return self.queues[link].get

    @staticmethod
    def pixels(frame: Frame) -> np.ndarray:
        return frame


def source(transport: Any, fps: float, index: int, cameras: int) -> None:
    send = transport.sender(0)
    frame = np.full((HEIGHT, WIDTH, 3), 7, np.uint8)
    start, sequence = first_moment(fps, index, cameras), 0
    while True:
        pace(fps, start, sequence)
        send(json.dumps([time.monotonic_ns()]), frame)
        sequence += 1


def hop(transport: Any, index: int) -> None:
    receive, send = transport.receiver(index), transport.sender(index + 1)
    while True:
        header, frame = receive()
        stamps = [*json.loads(header), time.monotonic_ns()]
        send(json.dumps([*stamps, time.monotonic_ns()]), frame)


def sink(transport: Any, marks: str, seconds: float) -> None:
    receive, meter = transport.receiver(LINKS - 1), Meter(marks, seconds)
    while True:
        header, frame = receive()
        stamps = [*json.loads(header), time.monotonic_ns()]
        touch(transport.pixels(frame))
        meter.frame(stamps)


def main() -> None:
    name, marks, seconds, cameras, fps = sys.argv[1:]
    multiprocessing.set_start_method("fork")
    transport = {"pyzmq": Pyzmq, "imagezmq": Imagezmq, "queue": Queue}[name](os.path.dirname(marks))
    work: list[tuple[Any, ...]] = [(sink, marks, float(seconds)), (hop, 1), (hop, 0)]
    work += [(source, float(fps), index, int(cameras)) for index in range(int(cameras))]
    parent = os.getppid()
    for target, *given in work:
        multiprocessing.Process(target=target, args=(transport, *given), daemon=True).start()
    while os.getppid() == parent:  # until whoever measures has seen enough and kills all of us, or is gone itself
        time.sleep(0.2)


if __name__ == "__main__":
    main()
