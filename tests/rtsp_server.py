"""A real RTSP server for the tests (GStreamer's), run by Debian's own Python; not a test itself.

python3 rtsp_server.py PORT WIDTHxHEIGHT CODEC FPS SOUND [USER PASSWORD]

rtsp://127.0.0.1:PORT/camera    a camera: moving picture in CODEC (h264, h265), ticks in SOUND (aac, opus)
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
H264 = (
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=12 ! h264parse "
    "! rtph264pay name=pay0 pt=96 config-interval=-1"
)
H265 = (
    "x265enc tune=zerolatency speed-preset=ultrafast key-int-max=12 ! h265parse "
    "! rtph265pay name=pay0 pt=96 config-interval=-1"
)
ENCODE = {"h264": H264, "h265": H265}
SIZE = "video/x-raw,width={width},height={height},framerate={fps}/1"
CAMERA = f"videotestsrc is-live=true pattern={{pattern}} ! {SIZE}"
TICKS = "audiotestsrc is-live=true wave=ticks ! audio/x-raw,rate=48000,channels=1"
SOUND = {
    "aac": f"{TICKS} ! avenc_aac ! aacparse ! rtpmp4gpay name=pay1 pt=97 ",
    "opus": f"{TICKS} ! opusenc ! rtpopuspay name=pay1 pt=97 ",
}
# What is published is decoded into a channel of this process, from which the relayed mount takes it.
INTO = (
    "rtph264depay name=depay0 ! h264parse ! avdec_h264 ! videoconvert "
    "! intervideosink channel=relay sync=false"
)
OUT_OF = f"intervideosrc channel=relay timeout=1000000000 ! videoconvert ! {SIZE} ! {H264}"


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
    size, codec, fps, heard = sys.argv[2:6]
    width, height = size.split("x")
    picture = f"{CAMERA} ! {ENCODE[codec]}".format(pattern="ball", width=width, height=height, fps=fps)
    for path, sound in (("/camera", SOUND[heard]), ("/silent", "")):
        launch = f"( {picture} {sound})"
        # Not shared: a client that the tests stall would hold up the next one.
        mounts.add_factory(path, factory(launch, shared=False))
    sinks = {"/record": f"( {INTO} )", "/record-sound": f"( {INTO} rtpmp4gdepay name=depay1 ! fakesink )"}
    for path, launch in sinks.items():
        into = factory(launch)
        into.set_transport_mode(RECORD)
        mounts.add_factory(path, into)
    mounts.add_factory("/relayed", factory(f"( {OUT_OF.format(width=160, height=120, fps=25)} )"))
    if len(sys.argv) > 6:
        authority = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        authority.add_basic(GstRtspServer.RTSPAuth.make_basic(*sys.argv[6:8]), token)
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
