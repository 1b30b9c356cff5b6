"""People before other rooms, with the mattes known: a set to find out what fails where there are no videos.

python -m training.composites --data ../shared/data --people portraits-val --out composites.tar
python -m training.evaluate --model banet64 --product --size 512 --data composites.tar --sheet worst.png
python -m training.composites --data ../shared/data --frames 8 --count 20 --out clips.tar
python -m training.evaluate --model banet64 --product --size 512 --clips --data clips.tar
python -m training.composites --data ../shared/data --people portraits-val --groups --out groups.tar

A composite is made as in training, with a webcam's noise and compression. With --groups several people
stand in each. With --frames each is a clip in which the person drifts and grows slowly, the room stands still
and the noise is another in every frame: dtSSD then tells the mattes' flicker. The same command makes the same
set.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from banet_stream.errors import InputError, UsageError

from . import augment, sets, tars
from .command import command
from .pairs import Array, Pair, Sample

# A webcam's picture and faults.
HEIGHT, WIDTH = 360, 640
NOISE, JPEG_QUALITY = (1.0, 5.0), (60, 90)
# Per frame: pixels that the person drifts, and the factor they grow by.
DRIFT, GROWTH = 3.0, 1.004
# Composites with less of a person than this show hardly anybody.
SMALLEST_PERSON = 0.03


def group(people: Sequence[Pair], rooms: Sequence[Pair], rng: np.random.Generator) -> Sample:
    """One composite of several people: [360, 640]."""
    room = pick(rooms, rng).image
    made = augment.group(lambda: pick(people, rng), room, HEIGHT, WIDTH, rng=rng)
    noise, quality = rng.uniform(*NOISE), int(rng.integers(*JPEG_QUALITY))
    return made._replace(image=filmed(made.image, noise, quality, rng))


def clip(
    people: Sequence[Pair], rooms: Sequence[Pair], frames: int, rng: np.random.Generator
) -> list[Sample]:
    """One composite, or the frames of one: each [360, 640]."""
    person = pick(people, rng)
    room = augment.room_for(pick(rooms, rng).image, HEIGHT, WIDTH, rng)
    behind = Sample(room, np.zeros((HEIGHT, WIDTH), np.uint8))
    view = augment.place(person.matte, HEIGHT, WIDTH, rng=rng)
    drift, noise = rng.uniform(-DRIFT, DRIFT), rng.uniform(*NOISE)
    quality = int(rng.integers(*JPEG_QUALITY))
    made = []
    for _ in range(frames):
        found = augment.stand_before(behind, person, view)
        made.append(found._replace(image=filmed(found.image, noise, quality, rng)))
        shift = (view.shift[0] + drift / view.scale, view.shift[1])
        view = replace(view, scale=view.scale * GROWTH, shift=shift)
    return made


def pick(pairs: Sequence[Pair], rng: np.random.Generator) -> Sample:
    return pairs[int(rng.integers(len(pairs)))].decode()


def filmed(image: Array, noise: float, quality: int, rng: np.random.Generator) -> Array:
    """[H, W, 3] with sensor noise and compression."""
    grainy = image + rng.normal(0, noise, image.shape).astype(np.float32)
    rgb = np.clip(grainy, 0, 255).astype(np.uint8)
    _, jpeg = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB)
    assert decoded is not None  # what OpenCV packed it unpacks
    return decoded.astype(np.uint8, copy=False)


def files(options: argparse.Namespace) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the tar, KEY.jpg and KEY.png in turn; a clip's keys are CLIP-FRAME."""
    root = Path(options.data)
    paths = sets.locate(root, (options.people, sets.BACKGROUNDS))
    people, rooms = sets.read(paths[options.people]), sets.read(paths[sets.BACKGROUNDS])
    # Sorted by name, a clip's frames must be in order.
    digits, frame_digits = max(4, len(str(options.count - 1))), max(3, len(str(options.frames)))
    rng, made, tries = np.random.default_rng(options.seed), 0, 0
    while made < options.count:
        tries += 1
        if tries > 20 * options.count:
            raise InputError(f"{options.people}: hardly any picture of it makes a composite with a person")
        frames = [group(people, rooms, rng)] if options.groups else clip(people, rooms, options.frames, rng)
        if min((f.matte >= 128).mean() for f in frames) < SMALLEST_PERSON:
            continue
        for number, frame in enumerate(frames, 1):
            key = f"{made:0{digits}}" + (f"-{number:0{frame_digits}}" if options.frames > 1 else "")
            bgr = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
            # The faults are in it already.
            yield f"{key}.jpg", cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
            yield f"{key}.png", tars.packed(frame.matte)
        made += 1


def run(options: argparse.Namespace) -> None:
    for name in ("count", "frames"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name}: must be 1 or more, got {getattr(options, name)}")
    if options.groups and options.frames > 1:
        raise UsageError(f"--groups: stand still, so --frames must be 1, got {options.frames}")
    tars.write(Path(options.out), files(options))
    print(
        f"{options.out}: {options.count} x {options.frames} pictures of {options.people} before backgrounds"
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.composites",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", default="../shared/data", help="folder of the sets (default: %(default)s)")
    parser.add_argument("--people", default="portraits-val", help="a set with mattes (default: %(default)s)")
    parser.add_argument("--out", required=True, metavar="FILE.tar")
    parser.add_argument("--count", type=int, default=100, help="composites or clips (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=1, help="of each clip (default: %(default)s)")
    parser.add_argument("--groups", action="store_true", help="several people in each picture")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; leaves through ``SystemExit`` with the error's exit code."""
    with command("composites"):
        run(parse(arguments))


if __name__ == "__main__":
    main()
