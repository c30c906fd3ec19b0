"""A real HTTP camera: `python tests/servers/http_server.py 8080` serves http://127.0.0.1:8080/stream (Motion JPEG).

Frame n of a connection is grey of level 8 * (n % 32), so that a reader can tell which frames it got. Beside it:
/frozen stops sending after 20 frames but keeps the connection; /damaged sends every fifth part as garbage;
/secret is /stream for user:password only; /FILE is a file of --folder, with a length, as web servers send it, and
/FILE?half stops sending in its middle.
Prints `ready PORT` once clients can connect; runs until it is killed. Needs OpenCV for the JPEGs alone.
"""

import argparse
import base64
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np


class Camera(BaseHTTPRequestHandler):
    frames: list[bytes]
    fps: float
    folder: Path | None

    def do_GET(self) -> None:
        login = base64.b64encode(b"user:password").decode()
        if self.path == "/secret" and self.headers.get("Authorization") != f"Basic {login}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
        elif self.path in ("/stream", "/frozen", "/damaged", "/secret"):
            self.stream()
        else:
            self.send_file(*self.path[1:].split("?"))

    def send_file(self, name: str, how: str = "") -> None:
        if not self.folder or not (self.folder / name).is_file():
            self.send_error(404)
            return
        data = (self.folder / name).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        if name.endswith(".html"):
            self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if how == "half" else data)
        while how == "half":
            time.sleep(1)

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        number = 0
        while True:
            while self.path == "/frozen" and number >= 20:
                time.sleep(1)
            jpeg = self.frames[number % len(self.frames)]
            if self.path == "/damaged" and number % 5 == 4:
                jpeg = jpeg[:2] + bytes(len(jpeg) - 2)
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg))
            self.wfile.write(jpeg + b"\r\n")
            number += 1
            time.sleep(1 / self.fps)

    def handle(self) -> None:
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client went away, as clients do

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int, help="0 for a free one")
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--height", type=int, default=120)
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--folder", type=Path, help="files to serve")
    args = parser.parse_args()
    grey = [np.full((args.height, args.width, 3), 8 * level, np.uint8) for level in range(32)]
    Camera.frames = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in grey]
    Camera.fps, Camera.folder = args.fps, args.folder
    server = ThreadingHTTPServer(("127.0.0.1", args.port), Camera)
    print("ready", server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
