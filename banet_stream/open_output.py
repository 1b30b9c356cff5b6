"""Which output OUTPUT's name means."""

from __future__ import annotations

from pathlib import Path

from .codecs import CONTAINERS, EncodeOptions
from .decode import Source
from .encode import Sink
from .errors import InputError, OutputError
from .images import STILL_HEIF, heif_brand
from .matte_out import Beside, MatteFile
from .numbering import is_pattern, may_meet
from .opening import STANDARD, is_picture, reason
from .output import Output, check_no_rate
from .photo import PICTURES, Photo, PictureFile
from .pipe import Y4m
from .resume import ResumableSink
from .sequence import Sequence

PATTERN_EXAMPLE = "out/%06d.png"


def open_output(
    path: str | Path,
    source: Source | Photo,
    options: EncodeOptions,
    *,
    alpha: bool = False,
    alpha_out: str | Path | None = None,
    resume_facts: dict[str, str] | None = None,
) -> Output:
    """The output for a path: video file, numbered pictures, ``-``, or for a photo one picture.

    Args:
        alpha: the frames are transparent. alpha_out: where the matte goes by itself.
        resume_facts: the output is made from segments, those of an earlier run with the same facts included.

    Raises:
        OutputError: when no output can be made of that. InputError: when it is the source's fault.
    """
    try:
        return open_any(path, source, options, alpha=alpha, alpha_out=alpha_out, resume_facts=resume_facts)
    except OSError as error:  # a folder that may not be searched, a name that is too long
        raise OutputError(f"{path}: can't be made: {reason(error)}") from error


def open_any(
    path: str | Path,
    source: Source | Photo,
    options: EncodeOptions,
    *,
    alpha: bool,
    alpha_out: str | Path | None,
    resume_facts: dict[str, str] | None,
) -> Output:
    if resume_facts is not None:
        video_file = Path(path).suffix.lower() in CONTAINERS
        if alpha_out is not None or not video_file:
            raise OutputError("--resume: works for a video file as OUTPUT, without --alpha-out")
        assert isinstance(source, Source)  # of photos it was refused before
        return ResumableSink(path, source, options, resume_facts, alpha=alpha)
    main = open_one(Path(path), source, options, alpha=alpha)
    if alpha_out is None:
        return main
    both = (Path(path), Path(alpha_out))
    if both[0].resolve() == both[1].resolve() or (all(map(is_pattern, both)) and may_meet(*both)):
        raise OutputError(f"--alpha-out {alpha_out}: is OUTPUT itself; choose another name")
    usual = EncodeOptions(overwrite=options.overwrite)
    return Beside(main, open_one(Path(alpha_out), source, usual, matte=True), main_alpha=alpha)


def open_one(
    path: Path, source: Source | Photo, options: EncodeOptions, *, alpha: bool = False, matte: bool = False
) -> Output:
    suffix = path.suffix.lower()
    if path.is_dir():
        raise OutputError(f"{path}: is a directory; name the file to write")
    if isinstance(source, Photo):
        if suffix not in PICTURES or is_pattern(path):
            raise OutputError(f"{path}: a photo becomes a picture; use {', '.join(PICTURES)}")
        return PictureFile(path, source, options, alpha=alpha, matte=matte)
    if str(path) == STANDARD:
        if alpha or matte:
            raise OutputError("-o -: y4m can't hold transparency; use .mov, .webm, .mkv or out/%06d.png")
        check_no_rate(path, options)
        return Y4m(source)
    if is_pattern(path):
        return Sequence(path, source, options, alpha=alpha, matte=matte)
    if suffix in PICTURES:
        if is_picture(source.container) or heif_brand(source.name) in STILL_HEIF:
            raise InputError(f"{source.name}: a picture that is damaged, or of a kind unknown here")
        raise OutputError(f"{path}: a video becomes many pictures; use a number, as in {PATTERN_EXAMPLE}")
    if suffix not in CONTAINERS:
        raise OutputError(
            f"{path}: the extension must be one of {', '.join(CONTAINERS)}, or pictures ({PATTERN_EXAMPLE}), "
            f"got {suffix or 'none'!r}"
        )
    if matte:
        return MatteFile(path, source, options, video_only=True)
    return Sink(path, source, options, alpha=alpha)
