"""A real RTSP server for the tests (GStreamer's), run by Debian's own Python; not a test itself.

python3 rtsp_server.py PORT WIDTHxHEIGHT [USER PASSWORD]

rtsp://127.0.0.1:PORT/camera    a camera: moving test picture with sound, 25 fps, H.264 and AAC
rtsp://127.0.0.1:PORT/silent    the same without sound
rtsp://127.0.0.1:PORT/record    publish here (with sound: /record-sound), and see it at /relayed
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)
RECORD = GstRtspServer.RTSPTransportMode.RECORD
PAY_VIDEO = "rtph264pay name=pay0 pt=96 config-interval=-1"
ENCODE = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=12"
SIZE = "video/x-raw,width={width},height={height},framerate=25/1"
CAMERA = f"videotestsrc is-live=true pattern={{pattern}} ! {SIZE}"
PICTURE = f"( {CAMERA} ! {ENCODE} ! h264parse ! {PAY_VIDEO} {{sound}})"
SOUND = (
    "audiotestsrc is-live=true wave=ticks ! audio/x-raw,rate=48000,channels=1 ! avenc_aac ! aacparse "
    "! rtpmp4gpay name=pay1 pt=97 "
)
# What is published is decoded into a channel of this process, from which the relayed mount takes it.
INTO = (
    "rtph264depay name=depay0 ! h264parse ! avdec_h264 ! videoconvert "
    "! intervideosink channel=relay sync=false"
)
OUT_OF = f"intervideosrc channel=relay timeout=1000000000 ! videoconvert ! {SIZE} ! {ENCODE} ! {PAY_VIDEO}"


def factory(launch: str, shared: bool = True) -> GstRtspServer.RTSPMediaFactory:
    made = GstRtspServer.RTSPMediaFactory()
    made.set_launch(launch)
    made.set_shared(shared)
    return made


def main() -> None:
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    mounts = server.get_mount_points()
    width, height = sys.argv[2].split("x")
    for path, sound in (("/camera", SOUND), ("/silent", "")):
        launch = PICTURE.format(pattern="ball", width=width, height=height, sound=sound)
        # Not shared: a client that the tests stall would hold up the next one.
        mounts.add_factory(path, factory(launch, shared=False))
    sinks = {"/record": f"( {INTO} )", "/record-sound": f"( {INTO} rtpmp4gdepay name=depay1 ! fakesink )"}
    for path, launch in sinks.items():
        into = factory(launch)
        into.set_transport_mode(RECORD)
        mounts.add_factory(path, into)
    mounts.add_factory("/relayed", factory(f"( {OUT_OF.format(width=160, height=120)} )"))
    if len(sys.argv) > 4:
        authority = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        authority.add_basic(GstRtspServer.RTSPAuth.make_basic(sys.argv[3], sys.argv[4]), token)
        server.set_auth(authority)
        for path in ("/camera", "/silent", "/record", "/record-sound", "/relayed"):
            permissions = GstRtspServer.RTSPPermissions()
            permissions.add_permission_for_role("user", "media.factory.access", True)
            permissions.add_permission_for_role("user", "media.factory.construct", True)
            mounts.match(path)[0].set_permissions(permissions)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
