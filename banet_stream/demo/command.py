"""``banet-stream demo``: options, and the server's beginning and end."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BanetStreamError, Interrupted, UsageError
from ..leaving import leaving_at_once
from ..matter_options import add_model_option
from ..matting import DEFAULT_SIZE, Matter

if TYPE_CHECKING:
    from gradio import Blocks

    from .sessions import Sessions
    from .uploads import Limits

HELP = """\
Opens a page in the browser: videos, photos and the live camera with another background.

  banet-stream demo
"""
LOCALHOST = "127.0.0.1"
DEFAULT_PORT = 7860
# Of a live camera's frame: 640x480, seen so as 256x192, leaves two cores time for the browser beside it.
CAMERA_SIZE = 288
SAMPLES = "samples"  # a folder in the server's
MISSING = "the demo needs Gradio, aiortc and scikit-image: pip install 'banet-stream[demo]' (missing: {name})"


def main(arguments: Sequence[str]) -> int:
    """Runs until Ctrl-C; returns the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        serve(options)
    except BanetStreamError as error:
        print(f"banet-stream demo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return Interrupted.exit_code
    return 0


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        prog="banet-stream demo", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument_group("who may come").add_argument
    add("--host", default=LOCALHOST, help=f"address to listen on; default: {LOCALHOST}, this computer only")
    add("--port", type=port, help=f"default: the first free one from {DEFAULT_PORT}")
    add("--auth", metavar="USER:PASSWORD", type=user_and_password, help="ask for these")
    add("--share", action="store_true", help="a public address through gradio.live, for 1 week at most")
    add("--tls-cert", metavar="FILE", help="with --tls-key: https, as browsers ask of cameras on a network")
    add("--tls-key", metavar="FILE", help="its private key")
    add("--no-browser", action="store_true", help="do not open the page")
    add = parser.add_argument_group("limits of one visitor").add_argument
    add("--max-upload", metavar="MB", type=positive, default=200, help="default: 200")
    add("--max-seconds", metavar="SECONDS", type=positive, default=120, help="of a video; default: 120")
    add("--max-side", metavar="PIXELS", type=positive, default=1920, help="of a video; default: 1920")
    add("--max-cameras", metavar="N", type=positive, default=4, help="live at once; default: 4")
    group = parser.add_argument_group("quality and speed")
    add_model_option(group)
    add = group.add_argument
    add(
        "--size",
        type=int,
        default=DEFAULT_SIZE,
        help="width at which the network sees 16:9 frames; others get as many pixels; "
        f"default: {DEFAULT_SIZE}",
    )
    add(
        "--camera-size",
        metavar="SIZE",
        type=int,
        default=CAMERA_SIZE,
        help=f"the same for the live camera; default: {CAMERA_SIZE}",
    )
    add("--device", default="auto", help="auto, cuda, cuda:N or cpu; default: auto")
    add("--precision", default="auto", help="auto, float32, float16, bfloat16, int8; default: auto")
    return parser


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number above nothing")
    return int(text)


def port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise argparse.ArgumentTypeError(f"{text!r}: a port is a number from 1 to 65535")
    return int(text)


def user_and_password(text: str) -> tuple[str, str]:
    user, _, password = text.partition(":")
    if not user or not password:
        raise argparse.ArgumentTypeError("is written USER:PASSWORD")
    return user, password


def serve(options: argparse.Namespace) -> None:
    """Makes the examples, loads the model, opens the page and waits.

    Raises:
        BanetStreamError: when something it needs is not here, or the port is taken.
    """
    check_address(options.host, options.port)
    check_certificate(options.tls_cert, options.tls_key)
    folder = Path(tempfile.mkdtemp(prefix="banet-demo-"))  # readable by us alone
    # Read by Gradio when it is imported: where uploads go; and no word to outside hosts.
    os.environ.update(
        GRADIO_TEMP_DIR=str(folder / "files"),
        GRADIO_ANALYTICS_ENABLED="False",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_OFFLINE="1",
    )
    try:
        # From then on SIGTERM means an end in good order, like Ctrl-C.
        with leaving_at_once(partial(shutil.rmtree, folder, ignore_errors=True), signal.SIGTERM):
            page, sessions, limits = build_page(options, folder)
        open_page(options, folder, page, sessions, limits)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_address(host: str, port: int | None) -> None:
    """Whether a server can listen there: Gradio would wait forever for one that did not begin.

    Raises:
        UsageError: when it can't.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        where = f"--host {host}" + (f" --port {port}" if port else "")
        raise UsageError(f"{where}: {error.strerror}; choose another") from error


def check_certificate(certificate: str | None, key: str | None) -> None:
    """The same for https.

    Raises:
        UsageError: when one of the files is missing or is not what it should be.
    """
    if not certificate and not key:
        return
    if not certificate or not key:
        raise UsageError("--tls-cert and --tls-key: give both or neither")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise UsageError(
            f"--tls-cert {certificate} --tls-key {key}: not a certificate and its private key in PEM "
            f"({error.reason or error.strerror})"
        ) from error
    except OSError as error:
        raise UsageError(f"--tls-cert {certificate} --tls-key {key}: {error.strerror}") from error


def build_page(options: argparse.Namespace, folder: Path) -> tuple[Blocks, Sessions, Limits]:
    """Imports what the page needs, loads the model, makes the examples.

    Raises:
        BanetStreamError: when something it needs is not here.
    """
    try:
        import skimage  # noqa: F401, PLC0415  (the extra's, like Gradio and aiortc)

        from . import app  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UsageError(MISSING.format(name=error.name)) from error
    from . import samples  # noqa: PLC0415
    from .sessions import Sessions  # noqa: PLC0415
    from .uploads import Limits  # noqa: PLC0415

    limits = Limits(
        upload_mb=options.max_upload,
        seconds=options.max_seconds,
        side=options.max_side,
        cameras=options.max_cameras,
    )
    try:
        matter = Matter(options.model, device=options.device, precision=options.precision, size=options.size)
        matter.at_size(options.camera_size)
    except ValueError as error:
        raise UsageError(f"--size, --camera-size: {error}") from error
    pictures = folder / SAMPLES
    pictures.mkdir()
    samples.write_all(pictures)
    sessions = Sessions(folder / "files")
    page = app.build(
        matter, samples=pictures, sessions=sessions, limits=limits, camera_size=options.camera_size
    )
    sessions.keep_examples()
    return page, sessions, limits


def open_page(
    options: argparse.Namespace, folder: Path, page: Blocks, sessions: Sessions, limits: Limits
) -> None:
    """Serves until Ctrl-C."""
    from . import app  # noqa: PLC0415

    try:
        address = app.launch(
            page,
            limits=limits,
            server_name=options.host,
            server_port=options.port,
            auth=options.auth,
            share=options.share,
            inbrowser=not options.no_browser,
            ssl_certfile=options.tls_cert,
            ssl_keyfile=options.tls_key,
            ssl_verify=False,
            allowed_paths=[],
            blocked_paths=[str(folder / SAMPLES)],
        )
    except OSError as error:
        raise UsageError(f"--host {options.host} --port {options.port or DEFAULT_PORT}: {error}") from error
    print(f"banet-stream demo: {address}", flush=True)
    if page.share_url:
        print(f"banet-stream demo: public until stopped: {page.share_url}", flush=True)
    print("Ctrl-C ends it.", flush=True)
    try:
        with sessions.sweeping():
            threading.Event().wait()
    finally:
        page.close()
