"""A real RTSP server: `/usr/bin/python3 tests/servers/rtsp_server.py 8554` serves rtsp://127.0.0.1:8554/cam.

GStreamer's own server, so that `capture` is tested against a peer that shares no code with it. Needs Debian's
gir1.2-gst-rtsp-server-1.0, python3-gi and gstreamer1.0-plugins-good, and therefore the system's Python. Prints
`ready PORT` once clients can connect; runs until it is killed.
"""

import argparse

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402 - gi wants the versions named first

ENCODERS = {
    "mjpeg": "jpegenc quality=70 ! rtpjpegpay name=pay0 pt=26",
    "h264": "openh264enc gop-size=15 ! rtph264pay name=pay0 pt=96 config-interval=-1",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int, help="0 for a free one")
    parser.add_argument("--codec", choices=ENCODERS, default="mjpeg")
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--height", type=int, default=120)
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--frames", type=int, default=-1, help="frames to each client, then the stream ends")
    parser.add_argument("--login", help="user:password that clients must give")
    parser.add_argument("--transport", choices=("tcp", "udp"), help="the only one to offer")
    args = parser.parse_args()

    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=str(args.port))
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        f"( videotestsrc is-live=true pattern=ball num-buffers={args.frames}"
        f" ! video/x-raw,format=I420,width={args.width},height={args.height},framerate={args.fps}/1"
        f" ! {ENCODERS[args.codec]} )"
    )
    if args.transport:
        factory.set_protocols(getattr(GstRtsp.RTSPLowerTrans, args.transport.upper()))
    if args.login:
        user, password = args.login.split(":")
        token = GstRtspServer.RTSPToken()
        token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "viewer")
        auth = GstRtspServer.RTSPAuth()
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        server.set_auth(auth)
        role = "viewer, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
        factory.add_role_from_structure(Gst.Structure.new_from_string(role))
    server.get_mount_points().add_factory("/cam", factory)
    if not server.attach(None):
        raise SystemExit(f"port {args.port} is in use")
    print("ready", server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
