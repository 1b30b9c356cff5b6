"""Data sets as their owners publish them, found by what lies in their folder; our tars; clips with mattes.

tar                     KEY.jpg with KEY.png (the matte) and, if wanted, KEY.weight.png (where it counts)
images/ masks/          NAME.jpg or .png with NAME.png or .jpg
EG1800                  Images/ Labels/ (0 and 1), eg1800_train.txt, eg1800_test.txt
PFCN+                   images_data_crop/ images_mask/NAME_mask.mat, trainlist.mat, testlist.mat
Supervisely Person      meta.json, DATASET/img/NAME.png, DATASET/ann/NAME.png.json (or NAME.json)
P3M-10k                 train/blurred_image, train/mask; validation/P3M-500-P, validation/P3M-500-NP
AISegment               clip_img/GROUP/clip_N/NAME.jpg, matting/GROUP/matting_N/NAME.png (the alpha channel)
"""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import av
import cv2
import numpy as np

from banet_stream.errors import InputError, UsageError, first_line

from . import labels
from .pairs import Pair, ReadLabel

# The one set whose pictures hold no person, and hence need no mattes.
BACKGROUNDS = "backgrounds"
# What ``training.soften`` makes of a set has its name and this.
MATTED = "-matted"
PICTURES = ("jpg", "jpeg")
# What a folder's pictures and mattes may end in.
SUFFIXES = (".jpg", ".jpeg", ".png")


class Found(NamedTuple):
    """A picture of a folder and its label."""

    image: Path
    label: Path
    read_label: ReadLabel | None = None


def unsoftened(name: str) -> str:
    """The set from which ``training.soften`` made this one; else itself."""
    return name.removesuffix(MATTED)


def locate(root: Path, names: Iterable[str]) -> dict[str, Path]:
    """Where the sets ``names`` lie: NAME.tar or the folder NAME; ``NAME:SPLIT`` is a part of one.

    Raises:
        InputError: naming all that are missing.
    """
    paths, missing = {}, []
    for name in names:
        bare, _, split = name.partition(":")
        tar, folder = root / f"{bare}.tar", root / bare
        if folder.is_dir():
            paths[name] = root / name
        elif tar.is_file() and not split:
            paths[name] = tar
        else:
            missing.append(str(tar))
    if missing:
        raise InputError(f"--data {root}: there is no {', '.join(missing)} (nor a folder of that name)")
    return paths


def read(path: Path, *, split: str = "", skip_broken: bool = False) -> list[Pair]:
    """A set's pictures, in a fixed order: a tar's in memory, a folder's by their paths.

    Args:
        path: the tar or folder; ``FOLDER:SPLIT`` is a part of one.
        split: the same in another way.
        skip_broken: leave out, with a line on the error stream, a picture that has no matte.

    Raises:
        InputError: when it can't be read, holds no picture, or a matte is missing.
        UsageError: when the split is missing or wrong.
    """
    if not path.exists() and ":" in path.name:
        name, _, split = path.name.partition(":")
        path = path.with_name(name)
    background = path.stem == BACKGROUNDS
    if not path.is_dir():
        return read_tar(path, mattes=not background, skip_broken=skip_broken)
    if background:
        return read_unlabelled(path)
    for lies_in, layout in LAYOUTS:
        if lies_in(path):
            return read_folder(path, layout(path, split), skip_broken=skip_broken)
    raise InputError(f"{path}: is laid out like no known data set (training/README.md lists them)")


def read_unlabelled(path: Path) -> list[Pair]:
    """The pictures of a tar or folder that has no mattes.

    Raises:
        InputError: when it can't be read, holds no picture, or a tar holds mattes.
    """
    if not path.is_dir():
        return read_tar(path, mattes=False)
    found = pictures(path)
    if not found:
        raise InputError(f"{path}: holds no picture")
    names = [p.relative_to(path).with_suffix("").as_posix() for p in found]
    return [Pair(f"{path.name}: {name}", p, None) for name, p in zip(names, found, strict=True)]


def read_tar(path: Path, *, mattes: bool = True, skip_broken: bool = False) -> list[Pair]:
    """A WebDataset tar: KEY.jpg with KEY.png (the matte) and maybe KEY.weight.png, sorted by key. Keys end at
    the file name's first dot; folders belong to them.

    Args:
        path: the tar.
        mattes: every picture must have one; without, the pictures hold nobody and must have none.
        skip_broken: leave out, with a line on the error stream, a picture that has no matte.

    Raises:
        InputError: when the tar can't be read, holds no picture or a file twice, or a matte is missing (or is
            one too many).
    """
    files: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member)
                if content is None:
                    continue
                name = PurePosixPath(member.name)
                stem, _, suffix = name.name.partition(".")
                found = files.setdefault(str(name.parent / stem), {})
                if suffix.lower() in found:
                    raise InputError(f"{path}: holds {member.name} twice")
                found[suffix.lower()] = content.read()
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{path}: can't be read as a tar ({first_line(error).rstrip(':')})") from error
    pairs = []
    for key, found in sorted(files.items()):
        image = next((found[suffix] for suffix in PICTURES if suffix in found), None)
        if image is None:
            continue
        if mattes != ("png" in found):
            wrong = "has no matte" if mattes else "has a matte, and must have none here"
            complain(f"{path}: {key}.jpg {wrong} ({key}.png)", skip_broken=skip_broken)
            continue
        weight = found.get("weight.png")
        pairs.append(Pair(f"{path.name}: {key}", image, found.get("png"), weight=weight))
    if not pairs:
        raise InputError(f"{path}: holds no .jpg")
    return pairs


def read_folder(path: Path, found: Iterable[Found], *, skip_broken: bool) -> list[Pair]:
    pairs = []
    for image, label, read_label in found:
        if not label.is_file() or not image.is_file():
            missing = image if label.is_file() else label
            complain(f"{path.name}: {image.name} has no {missing}", skip_broken=skip_broken)
            continue
        key = image.relative_to(path).with_suffix("").as_posix()
        pairs.append(Pair(f"{path.name}: {key}", image, label, read_label))
    if not pairs:
        raise InputError(f"{path}: holds no picture with a matte")
    return pairs


def complain(message: str, *, skip_broken: bool) -> None:
    if not skip_broken:
        raise InputError(message)
    print(f"skipped: {message}", file=sys.stderr, flush=True)


# --- layouts ---------------------------------------------------------------------------------------


def images_and_masks(path: Path, split: str) -> Iterator[Found]:
    no_split(path, split)
    yield from beside(path / "images", path / "masks")


def eg1800(path: Path, split: str) -> Iterator[Found]:
    """PortraitNet's download of EG1800: labels 0 and 1, lists of file names."""
    list_file = path / f"eg1800_{split}.txt"
    known = [p.stem.removeprefix("eg1800_") for p in path.glob("eg1800_*.txt")]
    if known and split not in known:
        refuse_split(path, split, known)
    wanted = set(list_file.read_text().split()) if known else None
    for found in beside(path / "Images", path / "Labels", labels.classes):
        if wanted is None or found.image.name in wanted:
            yield found


def pfcn(path: Path, split: str) -> Iterator[Found]:
    """The first portrait set's own download: crops as pictures, masks and lists as MATLAB files."""
    known = [p.stem.removesuffix("list") for p in path.glob("*list.mat")]
    if known and split not in known:
        refuse_split(path, split, known)
    wanted = labels.matlab_numbers(path / f"{split}list.mat") if known else None
    for image in pictures(path / "images_data_crop"):
        if wanted is None or (image.stem.isdigit() and int(image.stem) in wanted):
            yield Found(image, path / "images_mask" / f"{image.stem}_mask.mat", labels.matlab_mask)


def supervisely(path: Path, split: str) -> Iterator[Found]:
    no_split(path, split)
    for folder in sorted(p.parent for p in path.glob("*/ann")):
        for image in pictures(folder / "img"):
            label = folder / "ann" / f"{image.name}.json"
            if not label.is_file() and (folder / "ann" / f"{image.stem}.json").is_file():
                label = folder / "ann" / f"{image.stem}.json"  # as exported before 2020
            yield Found(image, label, labels.supervisely)


def p3m(path: Path, split: str) -> Iterator[Found]:
    parts = {p.parent.name: p.parent for p in sorted(path.glob("**/mask"))}
    folder = parts.get(split) or (path if path in parts.values() and not split else None)
    if folder is None:
        refuse_split(path, split, list(parts))
    assert folder is not None
    original = folder / "original_image"
    yield from beside(original if original.is_dir() else folder / "blurred_image", folder / "mask")


def aisegment(path: Path, split: str) -> Iterator[Found]:
    no_split(path, split)
    for image in pictures(path / "clip_img"):
        group = image.relative_to(path / "clip_img").parent
        folder = path / "matting" / group.parent / group.name.replace("clip", "matting")
        yield Found(image, folder / f"{image.stem}.png", labels.alpha_channel)


def below(*names: str) -> Callable[[Path], bool]:
    return lambda path: all(any(path.glob(name)) for name in names)


# The first that fits: what lies in the folder says whose data set it is.
LAYOUTS: tuple[tuple[Callable[[Path], bool], Callable[[Path, str], Iterator[Found]]], ...] = (
    (below("images", "masks"), images_and_masks),
    (below("Images", "Labels"), eg1800),
    (below("images_data_crop", "images_mask"), pfcn),
    (below("clip_img", "matting"), aisegment),
    (below("*/ann", "*/img"), supervisely),
    (below("**/mask"), p3m),
)


def beside(images: Path, masks: Path, read_label: ReadLabel | None = None) -> Iterator[Found]:
    """Pictures of one folder, and labels of the same name in another."""
    by_stem = {p.stem: p for p in pictures(masks)}
    for image in pictures(images):
        yield Found(image, by_stem.get(image.stem, masks / f"{image.stem}.png"), read_label)


def pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)


def no_split(path: Path, split: str) -> None:
    if split:
        raise UsageError(f"{path.name}:{split}: this data set has no parts; leave :{split} out")


def refuse_split(path: Path, split: str, known: list[str]) -> None:
    names = " or ".join(f"{path.name}:{name}" for name in sorted(known))
    raise UsageError(f"{path.name}{':' + split if split else ''}: this data set has parts; say {names}")


# --- clips -----------------------------------------------------------------------------------------


def read_clip(video: Path, mattes: Path) -> list[Pair]:
    """A video and the video of its mattes, frame by frame.

    Raises:
        InputError: when one can't be read, or they differ in length.
    """
    frames, truths = (list(packed_frames(path)) for path in (video, mattes))
    if len(frames) != len(truths):
        raise InputError(f"{mattes}: has {len(truths)} frames, {video} has {len(frames)}")
    width = len(str(len(frames)))
    pairs = zip(frames, truths, strict=True)
    return [Pair(f"{video.name}: {i:0{width}}", image, matte) for i, (image, matte) in enumerate(pairs, 1)]


def packed_frames(path: Path) -> Iterator[bytes]:
    """A video's frames as PNG, so that a minute of them fits into memory."""
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                rgb = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
                yield cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    except (av.FFmpegError, OSError, IndexError) as error:
        raise InputError(f"{path}: can't be read as a video ({error})") from error
