"""Encoding: which codec, how, and one finished stretch of frames at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from exprtool.errors import UnknownNameError, UsageError, VideoError
from exprtool.videos.picture import Picture
from exprtool.videos.types import ClipInfo, Colour

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame

CODEC_ALIASES: Mapping[str, tuple[str, ...]] = {
    "h264": ("libx264", "libopenh264"),
    "avc": ("libx264", "libopenh264"),
    "h265": ("libx265",),
    "hevc": ("libx265",),
    "vp8": ("libvpx",),
    "vp9": ("libvpx-vp9",),
    "av1": ("libsvtav1", "libaom-av1"),
    "prores": ("prores_ks",),
}
_FAMILIES: Mapping[str, str] = {
    "h264": "h264", "hevc": "h265", "vp8": "vp8", "vp9": "vp9", "av1": "av1", "prores": "prores", "ffv1": "ffv1",
    "huffyuv": "huffyuv", "ffvhuff": "ffvhuff", "utvideo": "utvideo", "qtrle": "qtrle", "png": "png",
}  # fmt: skip
"""Codecs of inputs that outputs keep, and what makes them. Older ones (MPEG-2, WMV, ...) become H.264."""
_PLAYED_IN: Mapping[str, frozenset[str]] = {
    "mp4": frozenset({"h264", "h265", "vp9", "av1"}),
    "mov": frozenset({"h264", "h265", "prores", "qtrle", "png"}),
}
"""What players expect in these; FFmpeg would write more into them."""
_DEFAULT_CRF: Mapping[str, float] = {
    "libx264": 17,
    "libx264rgb": 17,
    "libx265": 19,
    "libvpx-vp9": 22,
    "libsvtav1": 22,
    "libaom-av1": 22,
}
_SECONDS_PER_KEYFRAME = 2
_X26 = ("libx264", "libx264rgb", "libx265")
_X26_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
)  # fmt: skip


@dataclass(frozen=True)
class EncodeOptions:
    """What a user may say about the encoding; None leaves the choice to `plan_encoding`.

    ``crf`` is the codec's own constant rate factor (0 is lossless where the codec can); ``quality`` from 1 to 100 is
    the same for every codec (100 is crf 0). ``side_by_side`` puts the original beside the edit.
    """

    codec: str | None = None
    crf: float | None = None
    quality: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    side_by_side: bool = False


@dataclass(frozen=True)
class EncoderPlan:
    """Everything that determines the encoded bits, so that a resumed run can make the same ones.

    ``height`` and ``width`` are those of the encoded picture, stored (not upright); they exceed the picture's own by
    ``pad`` = (rows, columns) where the codec wants even numbers.
    """

    codec: str
    pix_fmt: str
    height: int
    width: int
    time_base: Fraction
    rate: Fraction | None
    gop: int
    options: Mapping[str, str] = field(default_factory=dict)
    qscale: float | None = None
    colour: Colour = field(default_factory=Colour)
    pixel_aspect: Fraction | None = None
    interlaced: bool = False
    global_header: bool = True
    threads: int = 2
    pad: tuple[int, int] = (0, 0)
    lossless: bool = False
    notes: tuple[str, ...] = ()

    @property
    def alpha(self) -> bool:
        return has_alpha(self.pix_fmt)

    def context(self) -> VideoCodecContext:
        """A fresh encoder, opened."""
        from av.codec import CodecContext

        context: Any = CodecContext.create(self.codec, "w")
        self.configure(context)
        context.open()
        return context

    def configure(self, context: Any) -> None:
        """Set up an encoder (a codec context, or a container's video stream's) that is not open yet."""
        from av.codec.context import Flags

        context.width, context.height, context.pix_fmt = self.width, self.height, self.pix_fmt
        context.time_base = self.time_base
        context.framerate = self.rate or Fraction(25)
        if self.pixel_aspect:
            context.sample_aspect_ratio = self.pixel_aspect
        context.gop_size = self.gop
        context.thread_count = self.threads
        context.color_range, context.color_primaries = self.colour.range, self.colour.primaries
        context.color_trc, context.colorspace = self.colour.transfer, self.colour.matrix
        context.flags |= Flags.closed_gop
        if self.global_header:
            context.flags |= Flags.global_header
        if self.interlaced:
            context.flags |= Flags.interlaced_dct | Flags.interlaced_me
        if self.qscale is not None:
            context.qscale = True
            context.global_quality = round(self.qscale * 118)  # FF_QP2LAMBDA
        context.options = dict(self.options)


def video_encoders() -> list[str]:
    """Names of the video encoders in this build of FFmpeg, hardware ones left out."""
    import av
    from av.codec.codec import Capabilities, Codec

    names = []
    for name in sorted(av.codecs_available):
        try:
            codec = Codec(name, "w")
        except ValueError:
            continue
        if codec.type == "video" and not codec.capabilities & Capabilities.hardware:
            names.append(codec.name)
    return sorted(set(names))


def find_encoder(name: str) -> str:
    """The encoder that a name or alias stands for; `UnknownNameError` lists what this build has."""
    known = video_encoders()
    for candidate in CODEC_ALIASES.get(name.lower(), (name,)):
        if candidate in known:
            return candidate
    raise UnknownNameError(
        "video codec", name, [*(a for a, to in CODEC_ALIASES.items() if set(to) & set(known)), *known]
    )


def plan_encoding(info: ClipInfo, options: EncodeOptions, container: str) -> EncoderPlan:
    """Resolve the user's wishes for one clip and output container (``mp4``, ``mov``, ``mkv``, ``webm``).

    Raises `UsageError` for a codec, pixel format, preset or quality that cannot be had; what had to be changed to fit
    is told in ``notes``.
    """
    if options.codec is not None:
        codec, notes = find_encoder(options.codec), []
        _check_container(codec, container)
    else:
        codec, notes = _default_encoder(info, container)
    source = info.pix_fmt
    pix_fmt, lost = _pixel_format(codec, source, options.pix_fmt)
    notes += lost
    colour = info.colour
    if _is_rgb(source) and not _is_rgb(pix_fmt):
        colour = Colour(
            range=1, primaries=1 if info.animation else colour.primaries, transfer=colour.transfer, matrix=1
        )
    height, width = info.height, info.width
    if options.side_by_side:
        height, width = (2 * height, width) if info.orientation.transpose else (height, 2 * width)
    settings, qscale, lossless = _quality_of_kept(codec, options, notes)
    _describe_light(codec, info, settings)
    interlaced = bool(info.interlaced) and codec == "libx264"
    rate = info.rate if info.rate and info.rate > 0 else None
    plan = EncoderPlan(
        codec=codec, pix_fmt=pix_fmt, height=height, width=width, time_base=info.time_base, rate=rate,
        gop=max(1, round(_SECONDS_PER_KEYFRAME * float(rate or 25))), options=settings, qscale=qscale, colour=colour,
        pixel_aspect=info.pixel_aspect, interlaced=interlaced, threads=max(1, min(8, os.cpu_count() or 1)),
        lossless=lossless, notes=tuple(notes),
    )  # fmt: skip
    return _fit_size(plan, info)


def _default_encoder(info: ClipInfo, container: str) -> tuple[str, list[str]]:
    """The encoder of the input's own codec where the build has it and the container takes it, and what else was done.

    Animations become what plays everywhere: H.264, or VP9 in WebM.
    """
    usual = "vp9" if container == "webm" else "h264"
    family = usual if info.animation else _FAMILIES.get(info.codec)
    codec = (
        next((one for one in CODEC_ALIASES.get(family, (family,)) if one in video_encoders()), None) if family else None
    )
    if codec == "libx264" and not info.animation and _is_rgb(info.pix_fmt) and "libx264rgb" in video_encoders():
        codec = "libx264rgb"
    played = family in _PLAYED_IN.get(container, {family})
    if codec is not None and played and _holds(container, codec):
        return codec, []
    why = (
        f"{container} cannot hold it" if codec else "exprtool does not write it" if not family else "no encoder is here"
    )
    return find_encoder(usual), [f"the picture was {info.codec} and is stored as {usual}: {why}"]


def _holds(container: str, codec: str) -> bool:
    import av

    with av.open(os.devnull, "w", format={"mkv": "matroska"}.get(container, container)) as probe:
        return codec in probe.supported_codecs


def _check_container(codec: str, container: str) -> None:
    if not _holds(container, codec):
        raise UsageError(
            f"A {container} file cannot hold video made by {codec!r}. Choose another --codec, or --format mkv, "
            "which holds any."
        )


def has_alpha(pix_fmt: str) -> bool:
    """Whether a pixel format stores transparency."""
    from av.video.format import VideoFormat

    return any(part.is_alpha for part in VideoFormat(pix_fmt).components)


def _is_rgb(pix_fmt: str) -> bool:
    from av.video.format import VideoFormat

    return bool(VideoFormat(pix_fmt).is_rgb)


def _pixel_format(codec: str, source: str, wanted: str | None) -> tuple[str, list[str]]:
    from av.codec.codec import Codec, find_best_pix_fmt_of_list

    from exprtool.videos.picture import working_format

    supported = [one.name for one in Codec(codec, "w").video_formats or ()]
    if wanted is not None:
        if supported and wanted not in supported:
            raise UnknownNameError(f"pixel format for {codec}", wanted, supported)
        return wanted, []
    source = working_format(source).replace("yuvj", "yuv")
    if not supported or source in supported:
        return source, []
    alpha, rgb = has_alpha(source), _is_rgb(source)
    choices = [one for one in supported if not one.startswith(("yuvj", "nv"))]
    notes = []
    if alpha:
        clear = [one for one in choices if has_alpha(one)]
        choices = clear or choices
        if not clear:
            notes.append(f"{codec} cannot store transparency: it was left out (--codec ffv1 or vp9 keep it)")
    same = [one for one in choices if _is_rgb(one) == rgb]
    if rgb and not same and "yuv420p" in choices:
        notes.append("RGB is stored as yuv420p, with half the resolution in colour (--codec ffv1 keeps it)")
        return "yuv420p", notes
    best, _ = find_best_pix_fmt_of_list(same or choices, source, alpha)
    name = best.name if best is not None else choices[0]
    if _depth(name) < _depth(source) or _is_rgb(name) != rgb or _chroma(name) < _chroma(source):
        notes.append(f"{codec} cannot store {source}; stored as {name}")
    return name, notes


def _depth(pix_fmt: str) -> int:
    from av.video.format import VideoFormat

    return max(part.bits for part in VideoFormat(pix_fmt).components)


def _chroma(pix_fmt: str) -> int:
    """How many samples of colour 64 by 64 pixels have."""
    from av.video.format import VideoFormat

    layout = VideoFormat(pix_fmt, 64, 64)
    return 64 * 64 if layout.is_rgb else layout.chroma_width() * layout.chroma_height()


def _describe_light(codec: str, info: ClipInfo, settings: dict[str, str]) -> None:
    """Tell an encoder of HDR video for which display it was mastered (SMPTE ST 2086, CTA 861.3)."""
    key, entries = {
        "libx265": ("x265-params", [("master-display", info.mastering), ("max-cll", info.light)]),
        "libx264": ("x264-params", [("mastering-display", info.mastering), ("cll", info.light)]),
    }.get(codec, ("", []))
    given = [f"{name}={value}" for name, value in entries if value]
    if given:
        settings[key] = ":".join(filter(None, [settings.get(key), *given]))


def _quality_of_kept(codec: str, options: EncodeOptions, notes: list[str]) -> tuple[dict[str, str], float | None, bool]:
    """`_quality`; where the input chose the codec, what the user said of quality may not fit and is passed over."""
    if options.codec is None:
        for name in ("preset", "crf", "quality"):
            alone = replace(EncodeOptions(), **{name: getattr(options, name)})
            try:
                _quality(codec, alone)
            except UsageError as error:
                if codec in _X26 or (codec in _DEFAULT_CRF and name != "preset"):
                    raise
                options = replace(options, **{name: None})
                notes.append(f"--{name} was passed over: {str(error).rstrip('.')}")
    return _quality(codec, options)


def _quality(codec: str, options: EncodeOptions) -> tuple[dict[str, str], float | None, bool]:
    """(private options, qscale, lossless) of an encoder."""
    from av.codec import CodecContext

    context: Any = CodecContext.create(codec, "w")
    private = {option.name: option for option in context.supported_options.private}
    if options.crf is not None and options.quality is not None:
        raise UsageError("Give --crf or --quality, not both: they say the same in two scales.")
    settings: dict[str, str] = {}
    if options.preset is not None:
        _check_preset(codec, options.preset, private, context)
        settings["preset" if "preset" in private else "cpu-used"] = options.preset
    lossless_only = "lossy" not in private and codec in ("ffv1", "huffyuv", "ffvhuff", "utvideo", "rawvideo", "png")
    if lossless_only:
        if options.crf not in (None, 0) or options.quality not in (None, 100):
            raise UsageError(f"{codec} is lossless: it takes neither --crf nor --quality.")
        return settings, None, True
    if "crf" not in private:
        if options.crf is not None:
            raise UsageError(f"{codec} has no constant rate factor. Use --quality instead, or another --codec.")
        if codec == "prores_ks":
            return settings, None, False
        return settings, 31 - 29 * (options.quality if options.quality is not None else 93) / 100, False
    top = 51.0 if codec in _X26 else 63.0
    crf = options.crf if options.crf is not None else _DEFAULT_CRF.get(codec, top / 3)
    if options.quality is not None:
        if not 1 <= options.quality <= 100:
            raise UsageError(f"--quality must be from 1 to 100, not {options.quality:g}.")
        crf = top * (1 - options.quality / 100)
    if not 0 <= crf <= top:
        raise UsageError(f"--crf must be from 0 to {top:g} for {codec}, not {crf:g}.")
    if crf == 0 and codec in (*_X26, "libvpx-vp9"):
        lossless = {
            "libx264": {"qp": "0"}, "libx264rgb": {"qp": "0"}, "libx265": {"x265-params": "lossless=1:log-level=error"},
            "libvpx-vp9": {"lossless": "1"},
        }[codec]  # fmt: skip
        return settings | lossless, None, True
    settings["crf"] = f"{crf:g}"
    if codec == "libx265":
        settings["x265-params"] = "log-level=error"
    elif codec in _X26 and _has_avx512():
        settings["x264-params"] = "asm=AVX2"
    return settings, None, False


_CV_CPU_AVX512_SKX = 256
"""OpenCV's number for the AVX-512 instructions that x264 looks for."""


def _has_avx512() -> bool:
    """Whether x264 would use its AVX-512 routines, which are not the same on every run.

    Its macroblock tree then gives other bits now and then (of 40 runs with four threads 25 agreed); with AVX2, and with
    SSE4.2, all agree, also with each other.
    """
    import cv2

    return bool(cv2.checkHardwareSupport(_CV_CPU_AVX512_SKX))


def _check_preset(codec: str, preset: str, private: Mapping[str, Any], context: Any) -> None:
    option = private.get("preset") or private.get("cpu-used")
    if option is None:
        raise UsageError(f"{codec} has no presets; leave out --preset.")
    named = [choice.name for choice in option.choices]
    if codec in _X26:
        named = list(_X26_PRESETS)
    numeric = preset.lstrip("-").isdigit() and codec not in _X26
    if numeric and option.min <= int(preset) <= option.max:
        return
    if preset not in named:
        known = named or [f"a number from {option.min:g} to {option.max:g}"]
        raise UnknownNameError(f"preset of {codec}", preset, known)


_ANY_SIZE = frozenset(
    {
        "ffv1",
        "libx264rgb",
        "qtrle",
        "libvpx",
        "libvpx-vp9",
        "libaom-av1",
        "huffyuv",
        "ffvhuff",
        "utvideo",
        "mjpeg",
        "png",
        "rawvideo",
    }
)
"""Encoders that store odd numbers of rows or columns with subsampled chroma; others refuse or drop one in silence."""


def _fit_size(plan: EncoderPlan, info: ClipInfo) -> EncoderPlan:
    """Give a codec that cannot store odd numbers a row or column more, and open it once to see that it can be used."""
    from av.error import FFmpegError
    from av.video.format import VideoFormat

    layout = VideoFormat(plan.pix_fmt, 64, 64)
    rows, columns = (64 // max(1, size) for size in (layout.chroma_height(), layout.chroma_width()))
    pad = -plan.height % rows, -plan.width % columns
    if any(pad) and plan.codec not in _ANY_SIZE:
        height, width = plan.height + pad[0], plan.width + pad[1]
        note = (
            f"{plan.codec} cannot store {plan.width}x{plan.height} as {plan.pix_fmt}: stored as {width}x{height} with "
            "the edge repeated (--pix-fmt yuv444p, or --codec vp9 or ffv1, keep the size)"
        )
        plan = replace(plan, height=height, width=width, pad=pad, notes=(*plan.notes, note))
    try:
        plan.context()
    except (FFmpegError, ValueError) as error:
        raise UsageError(
            f"{info.path}: {plan.codec} does not accept {plan.width}x{plan.height} {plan.pix_fmt} with "
            f"{dict(plan.options)} ({error}). Choose another --codec, --pix-fmt or --preset."
        ) from error
    return plan


class StretchEncoder:
    """One run of frames through a fresh encoder: what comes out decodes on its own."""

    def __init__(self, plan: EncoderPlan) -> None:
        self.plan = plan
        self._context = plan.context()

    def encode(self, picture: Picture, pts: int, duration: int) -> Iterator[Packet]:
        """Packets that are ready after this frame; their time stamps are in the plan's time base."""
        frame = self._suited(picture)
        frame.pts, frame.time_base, frame.duration = pts, self.plan.time_base, duration
        frame.pict_type = 0  # the decoder's picture type would otherwise be taken as an order
        yield from self._context.encode(frame)

    def finish(self) -> Iterator[Packet]:
        yield from self._context.encode(None)

    def _suited(self, picture: Picture) -> VideoFrame:
        frame, plan = picture.frame(), self.plan
        if frame.format.name != plan.pix_fmt:
            rgb_to_yuv = frame.format.is_rgb and not _is_rgb(plan.pix_fmt)
            frame = frame.reformat(
                format=plan.pix_fmt,
                dst_colorspace=plan.colour.matrix if rgb_to_yuv else None,
                dst_color_range=plan.colour.range if rgb_to_yuv else None,
            )
        if any(plan.pad):
            frame = _padded(frame, plan.height, plan.width)
        return frame


def _padded(frame: VideoFrame, height: int, width: int) -> VideoFrame:
    """The frame on a canvas a row or column larger, its edge repeated."""
    from av import VideoFrame

    wide = VideoFrame(width, height, frame.format.name)
    for source, target in zip(frame.planes, wide.planes, strict=True):
        kind = np.dtype("<u2") if max(part.bits for part in frame.format.components) > 8 else np.dtype(np.uint8)
        old = np.frombuffer(memoryview(source), kind).reshape(source.height, -1)[:, : source.width]
        new = np.frombuffer(memoryview(target), kind).reshape(target.height, -1)
        grown = ((0, target.height - source.height), (0, target.width - source.width))
        new[:, : target.width] = np.pad(old, grown, mode="edge")
    for name in ("colorspace", "color_range", "color_trc", "color_primaries"):
        setattr(wide, name, getattr(frame, name))
    return wide


def encoder_failed(error: Exception, plan: EncoderPlan) -> VideoError:
    return VideoError(f"The encoder {plan.codec} failed ({error}). Try another --codec, or --preset.")
