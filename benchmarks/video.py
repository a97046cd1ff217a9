"""How fast clips are edited, stage by stage, beside decoding and encoding alone in the same run; and in what memory.

    python benchmarks/video.py CLIP [--backend NAME] [--detector NAME] [--frames N] [--loop N] [--memory]

Prints one line per stage: seconds, milliseconds per frame, frames per second. ``--loop`` repeats the clip up to so
many frames first: loading the models, about two seconds, weighs heavily in a clip of three. With ``--memory`` the clip
is looped to 300 and to 3,000 frames and edited by a backend that only tints; the peak resident memory of both runs is
compared.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from exprtool.pipeline import Session
from exprtool.timeline import Moment, parse_timeline
from exprtool.types import Edit
from exprtool.videos.clip import probe
from exprtool.videos.edit import VideoOptions, edit_video
from exprtool.videos.encoder import EncodeOptions, StretchEncoder, plan_encoding
from exprtool.videos.reader import read_frames


def copy_alone(clip: Path, frames: int) -> tuple[int, float]:
    """Decode and encode without looking at the pictures; returns (frames, seconds)."""
    info = probe(clip)
    encoder = StretchEncoder(plan_encoding(info, EncodeOptions(), "mp4"))
    began, count = time.perf_counter(), 0
    for frame in read_frames(info):
        if count >= frames:
            break
        if frame.picture is not None:
            for _ in encoder.encode(frame.picture, frame.pts, frame.duration):
                pass
        count += 1
    for _ in encoder.finish():
        pass
    return count, time.perf_counter() - began


def speed(clip: Path, backend: str, detector: str, expression: str, frames: int) -> None:
    count, alone = copy_alone(clip, frames)
    session = Session(backend, detector)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        options = VideoOptions(end=Moment(frame=frames))
        result = edit_video(session, clip, Path(folder) / "out.mp4", Edit(), parse_timeline(expression), options)
        whole = time.perf_counter() - began
    size = "x".join(str(side) for side in reversed(result.info.size))
    print(f"{clip.name}: {result.frames} frames of {size}, {result.edited_frames} edited, {session.chain.names[0]}")
    stages = {stage: seconds for stage, seconds in result.timings.items() if stage != "analyse"}
    for stage, seconds in {"decode + encode alone": alone, **stages, "the whole edit": whole}.items():
        print(f"  {stage:22} {seconds:7.2f} s {1000 * seconds / count:8.1f} ms/frame {count / seconds:8.1f} frames/s")
    print(f"  the whole edit takes {whole / alone:.1f} times as long as decoding and encoding alone")


_ONE_RUN = """
import resource, sys
from pathlib import Path
import numpy as np
from exprtool.pipeline import Session
from exprtool.timeline import parse_timeline
from exprtool.types import Backend, Edit, FacePatch
from exprtool.videos.edit import VideoOptions, edit_video
from exprtool.videos.encoder import EncodeOptions

class Tint(Backend):
    def generate(self, prepared, edit):
        half = [np.full(region.pixels.shape[:2], 0.5, np.float32) for region in prepared]
        return [FacePatch(255 - region.pixels, alpha) for region, alpha in zip(prepared, half)]

edit_video(
    Session(Tint(), "dlib"), Path(sys.argv[1]), Path(sys.argv[2]), Edit(), parse_timeline("happy"),
    VideoOptions(encode=EncodeOptions(preset="ultrafast")),
)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def looped(clip: Path, frames: int, folder: Path) -> Path:
    """The clip repeated up to ``frames`` frames, without sound (needs the ffmpeg command)."""
    target = folder / f"{clip.stem}-{frames}.mp4"
    looping = ["ffmpeg", "-v", "error", "-stream_loop", "-1", "-i", str(clip), "-frames:v", str(frames)]
    subprocess.run([*looping, "-an", "-c:v", "libx264", "-preset", "ultrafast", str(target)], check=True)
    return target


def memory(clip: Path) -> None:
    """Peak memory for the clip looped to 300 and to 3,000 frames (needs the ffmpeg command)."""
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for frames in (300, 3000):
            source, out = looped(clip, frames, Path(folder)), Path(folder) / "out.mp4"
            command = [sys.executable, "-c", _ONE_RUN, str(source), str(out)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            out.unlink()
            peaks[frames] = float(done.stdout.splitlines()[-1])
            print(f"  {frames} frames: peak {peaks[frames]:.0f} MiB")
    print(f"  ratio {peaks[3000] / peaks[300]:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--detector", default="auto")
    parser.add_argument("--expr", default="happy")
    parser.add_argument("--frames", type=int, default=10**9)
    parser.add_argument("--loop", type=int, default=0)
    parser.add_argument("--memory", action="store_true")
    wishes = parser.parse_args()
    if wishes.memory:
        memory(wishes.clip)
        return
    with tempfile.TemporaryDirectory() as folder:
        clip = looped(wishes.clip, wishes.loop, Path(folder)) if wishes.loop else wishes.clip
        speed(clip, wishes.backend, wishes.detector, wishes.expr, wishes.frames)


if __name__ == "__main__":
    main()
