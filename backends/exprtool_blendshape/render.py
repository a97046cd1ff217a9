"""One face on its working grid: what is known before any edit (`look`), and the maps that make an edit (`changes`).

The rooms meet here, in the order in which light meets a face: mesh (`raster`, `lips`), motion (`field`, `eyes`,
`occluders`), light (`shading`, `wrinkles`), and what was hidden before (`eyes`, `mouth`). Nothing in this module
touches the photo's own resolution; see `compose` for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy import eyes, occluders
from exprtool.anatomy.grids import Grid
from exprtool.anatomy.tone import Tone, tone_of
from exprtool.pixels.ramps import LUMA, Ramp
from exprtool.types import FaceRegion
from exprtool_blendshape import field, lips, mouth, raster, shading, wrinkles
from exprtool_blendshape import topology as parts
from exprtool_blendshape.fit import Fit
from exprtool_blendshape.frame import WorkFrame, work_frame
from exprtool_blendshape.topology import Topology, topology_of

FOREHEAD_FROM = 4.9
"""Template y above which only what looks like skin is shaded: there hair may hang over the face."""


@dataclass(frozen=True, eq=False)
class FaceLook:
    """Everything about one face that no edit changes.

    Pictures are (H, W, ...) on ``frame``'s working grid, or, where they serve light, on its coarse grid (h, w, ...).
    ``picture`` is the photo, RGB in [0, 1]; ``lip_offset`` (V, 3) is what puts the source mesh's lips on the photo's,
    ``source`` (V, 2) that mesh, and ``texture`` (V, 2) where each vertex takes its colour once the lips move;
    ``normals`` (V, 3) those of the source mesh. Coarse: ``cavity`` of the source surface, ``skin`` likeness and
    ``burnt`` in [0, 1].
    """

    region: FaceRegion
    fit: Fit
    frame: WorkFrame
    topology: Topology
    picture: Grid
    photo_lips: lips.LipCurves
    source_lips: lips.LipCurves
    lip_offset: NDArray[np.float64]
    source: NDArray[np.float64]
    texture: NDArray[np.float64]
    normals: NDArray[np.float64]
    cavity: Grid
    light: shading.Light
    burnt: Grid
    tone: Tone
    skin: Grid
    glasses: occluders.Glasses | None
    own_lines: wrinkles.OwnLines
    lines: wrinkles.Lines
    eyes: dict[int, eyes.Eye]
    mouth: mouth.MouthPhoto
    border: Grid


@dataclass(frozen=True, eq=False)
class Changes:
    """An edit on the working grid (H, W).

    Backward ``flow`` in work pixels (H, W, 2); ``log_gain`` of linear light on the coarse grid; what is painted:
    ``alpha``, ``keep`` (how much of the photo's own pixel in place), ``colour`` (H, W, 3) for the rest, and
    ``shade`` on both; what lies ``between`` the lips, and what of that is a ``hole``, for the inside of the mouth.
    """

    flow: Grid
    log_gain: Grid
    alpha: Grid
    keep: Grid
    colour: Grid
    shade: Grid
    between: Grid
    hole: Grid


def look(region: FaceRegion, fit: Fit) -> FaceLook:
    """Look at a fitted face once; the result serves every edit of it."""
    topology = topology_of(fit.model)
    frame = work_frame(fit.landmarks, fit.camera.scale, region.pixels.shape[:2])
    u, c = frame.u, frame.coarse
    picture = frame.picture(region.pixels)
    picture *= np.float32(1 / 255)
    landmarks = frame.points(fit.landmarks)

    plain = frame.points(fit.camera.project(fit.mesh(fit.source)))
    photo_lips = lips.curves(frame.points(fit.lips.upper), frame.points(fit.lips.lower))
    source = frame.points(fit.posed(fit.source))
    lip_offset = lips.on_photo(source, topology, photo_lips, u)
    source = source + lip_offset
    normals = _normals(plain, topology)

    seen = raster.blank(frame.shape)
    raster.draw(seen, source, topology.triangles)
    label = seen.labels(topology.label)
    coarse = seen.every(c)
    small = cv2.blur(picture, (c, c), anchor=(0, 0))[::c, ::c] if c > 1 else picture
    shown = raster.interpolate(coarse, topology.triangles, np.c_[topology.template, topology.front, normals])
    template, front, normal = shown[..., :2], shown[..., 2], shown[..., 3:6]
    skin_mesh = (label[::c, ::c] == parts.SKIN) & (front > 0.5)
    likeness = occluders.skin_likeness(small, template, skin_mesh, u / c)
    face = small[skin_mesh & (likeness > 0.5)][::3]
    lit = float(np.percentile(face @ LUMA, 70)) if len(face) > 50 else 0.6
    found: dict[int, eyes.Eye] = {}
    for part, ids in ((parts.EYE_RIGHT, slice(36, 42)), (parts.EYE_LEFT, slice(42, 48))):
        eye = eyes.complete(picture, label == part, landmarks[ids], lit, u)
        if eye is not None:
            found[part] = eye
    return FaceLook(
        region=region,
        fit=fit,
        frame=frame,
        topology=topology,
        picture=picture,
        photo_lips=photo_lips,
        source_lips=lips.mesh_curves(plain, topology),
        lip_offset=lip_offset,
        source=source[:, :2],
        texture=lips.texture(source, topology, photo_lips, u, frame.scale),
        normals=normals,
        cavity=shading.cavity(coarse.depth / c, skin_mesh, u / c),
        light=_light(small, normal, skin_mesh, likeness, landmarks / c),
        burnt=shading.burnt(small, u / c),
        tone=tone_of(small[skin_mesh][::3]) if len(face) > 50 else Tone(0.0, np.zeros((3, 2), np.float32)),
        skin=likeness,
        glasses=occluders.glasses(picture, landmarks, occluders.frown(fit.source), u),
        own_lines=wrinkles.measure(small, template, likeness * skin_mesh, skin_mesh, u / c),
        lines=wrinkles.lay_out(int(abs(float(fit.identity[0])) * 997) % 997),
        eyes=found,
        mouth=mouth.look_at(
            picture,
            photo_lips,
            fit.lips.open,
            fit.lips.teeth,
            landmarks[48:60],
            u,
        ),
        border=field.at_border(frame, region),
    )


def changes(face: FaceLook, weights: Mapping[str, float], taken_off: float = 1.0) -> Changes:
    """The maps of an edit to absolute control ``weights``; ``taken_off`` as in
    `exprtool_blendshape.lips.wanted_gap`."""
    fit, frame, topology = face.fit, face.frame, face.topology
    u, c = frame.u, frame.coarse
    mesh = fit.mesh(weights)
    plain = frame.points(fit.camera.project(mesh))
    target = frame.points(fit.camera.project(mesh + fit.offset)) + face.lip_offset
    gap = lips.wanted_gap(face.photo_lips, face.source_lips, lips.mesh_curves(plain, topology), taken_off, u)
    target = lips.settled(target, topology, np.interp(*_onto(target, topology, gap)), u)
    lips_moved = _lips_moved(face, target)
    speaking = float(Ramp(0.0, LIPS_MOVE)(lips_moved))  # at 0 all between them is the photo's own
    texture = face.source + speaking * (face.texture - face.source)
    normals = _normals(plain, topology)

    seen = raster.blank(frame.shape)
    raster.draw(seen, target, topology.triangles)
    label = seen.labels(topology.label)
    moved = raster.interpolate(seen, topology.triangles, np.c_[texture - target[:, :2], topology.front])
    known = (label == parts.SKIN) & (moved[..., 2] > 0.5)

    flow = field.extended(moved[..., :2], known, u)
    for part in face.eyes:
        eyes.carry_lashes(flow, label == part, u)
    if face.glasses is not None:
        flow = occluders.hold(flow, face.glasses)
    flow *= face.border[..., None]

    log_gain = _light_changes(face, seen.every(c), known[::c, ::c], normals, label[::c, ::c], flow, weights)
    log_gain += _seam(face, target, label)[::c, ::c]
    if face.glasses is not None:
        log_gain *= 1 - face.glasses.frame[::c, ::c]
    return _painted(face, label, gap, lips_moved, speaking, flow, log_gain)


LIPS_MOVE = 0.15
"""Motion (cm) of the lips' rims from which on the inside of lips and mouth is drawn in full; below, it fades in."""


def _lips_moved(face: FaceLook, target: NDArray[np.float64]) -> float:
    """How far (cm) the rims of the lips have left their place in the photo where they moved farthest."""
    rims = np.concatenate([face.topology.edge_upper, face.topology.edge_lower])
    return float(np.linalg.norm(target[rims, :2] - face.source[rims], axis=1).max()) / face.frame.u


def _painted(
    face: FaceLook,
    label: NDArray[np.int8],
    gap: NDArray[np.float64],
    moved: float,
    speaking: float,
    flow: Grid,
    log_gain: Grid,
) -> Changes:
    """Lay eyes and mouth over the moved photo."""
    u = face.frame.u
    alpha = np.zeros(face.frame.shape, np.float32)
    keep = np.zeros_like(alpha)
    shade = np.ones_like(alpha)
    colour = np.zeros((*face.frame.shape, 3), np.float32)
    for part, eye in face.eyes.items():
        drawn = eyes.paint(eye, label == part, flow, u)
        w = drawn.window
        alpha[w] = np.maximum(alpha[w], drawn.alpha)
        keep[w], shade[w], colour[w] = drawn.keep, drawn.shade, face.tone(drawn.colour)
    cover = mouth.cover(face.mouth, flow, log_gain, face.frame.coarse)
    if cover is not None:
        w = cover.window
        over = np.minimum(cover.alpha, 1) * speaking
        alpha[w] = np.maximum(alpha[w], over)
        colour[w] = np.where(over[..., None] > 0, face.tone(np.clip(cover.colour, 0, 1)), colour[w])
    middle = slice(len(gap) // 5, -(len(gap) // 5))
    own = np.interp(np.linspace(0, 1, len(gap)), face.photo_lips.along(face.photo_lips.x), face.photo_lips.gap)
    widening = float(np.mean(np.maximum(gap, 0)[middle] - np.maximum(own, 0)[middle])) / u
    between, hole = np.zeros_like(alpha), np.zeros_like(alpha)
    inside = mouth.paint(face.mouth, label, widening, moved, bool((gap < 0).all()), u)
    if inside is not None:
        # over the lips that were covered: two layers, the mouth on top
        w = inside.window
        below = alpha[w] * (1 - inside.alpha)
        total = np.maximum(below + inside.alpha, 1e-6)
        drawn = face.tone(np.clip(inside.colour, 0, 1))
        colour[w] = (drawn * inside.alpha[..., None] + colour[w] * below[..., None]) / total[..., None]
        kept = (1 - speaking * (1 - inside.keep)) * inside.alpha
        keep[w] = (kept + keep[w] * below) / total
        alpha[w] = below + inside.alpha
        between[w], hole[w] = inside.alpha, inside.alpha - kept
    bare = face.border if face.glasses is None else face.border * (1 - face.glasses.frame)
    return Changes(flow, log_gain, alpha * bare, keep, colour, shade, between * bare, hole * bare)


def _light_changes(
    face: FaceLook,
    seen: raster.Raster,
    known: NDArray[np.bool_],
    normals: NDArray[np.float64],
    label: NDArray[np.int8],
    flow: Grid,
    weights: Mapping[str, float],
) -> Grid:
    """Log gain of linear light on the coarse grid: the turned surface, its folds, and lines that come and go."""
    c = face.frame.coarse
    u = face.frame.u / c
    flow = np.ascontiguousarray(flow[::c, ::c]) / np.float32(c)
    shown = raster.interpolate(seen, face.topology.triangles, np.c_[face.topology.template, face.normals, normals])
    x, y = shown[..., 0], shown[..., 1]
    was = field.sample(np.dstack([face.cavity, face.skin, face.burnt]), flow)

    ratio = cv2.GaussianBlur(shading.log_ratio(face.light, shown[..., 2:5], shown[..., 5:8]), (0, 0), 0.06 * u)
    folds = np.clip(shading.cavity(seen.depth / np.float32(c), known, u) - was[..., 0], -0.10, 0.5)
    holes = ((label != parts.SKIN) & (label >= 0)).astype(np.float32)
    inner = cv2.erode(known.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.float32)
    weight = cv2.GaussianBlur(inner, (0, 0), 0.10 * u) * known
    weight *= np.clip(1 - 1.6 * cv2.GaussianBlur(holes, (0, 0), 0.08 * u), 0, 1)
    # skin likeness counts on the forehead only: below it beards and shadows are skin too
    weight *= 1 - np.clip((y - FOREHEAD_FROM) / 0.8, 0, 1) * (1 - was[..., 1])
    # between the brows the frown folds the mesh more sharply than skin: its shadow would be a bar across the nose
    weight *= 1 - 0.75 * np.exp(-((x / 2.2) ** 4) - ((y - 4.4) / 0.9) ** 4)
    log_gain = weight * cv2.GaussianBlur(ratio - np.float32(shading.CAVITY_STRENGTH) * folds, (0, 0), 0.07 * u)

    own = face.own_lines
    before, after = wrinkles.drivers(face.fit.source), wrinkles.drivers(weights)
    change = {name: after[name] - before[name] for name in after}
    amount = wrinkles.AMPLITUDE * (0.30 + 0.70 * own.lined) * (0.55 + 0.45 * own.sharp)
    least = max(1.1 / face.fit.camera.scale, 1.2 / u)
    skin = was[..., 1] * known
    log_gain += np.float32(amount) * wrinkles.drawn(face.lines, change, shown[..., :2], skin, least)
    kept = field.sample(wrinkles.own_change(own, before, after), flow) * known
    log_gain += np.minimum(kept, 0)

    eye = ((label == parts.EYE_LEFT) | (label == parts.EYE_RIGHT)).astype(np.float32)
    near_eyes = np.clip(4 * cv2.GaussianBlur(eye, (0, 0), 0.45 * u), 0, 1)
    log_gain = shading.limited(log_gain, near_eyes)
    log_gain *= 1 - was[..., 2] * (log_gain < 0)
    log_gain += np.maximum(kept, 0)  # a line that fades may brighten more than a surface that turns
    log_gain = cv2.GaussianBlur(log_gain, (0, 0), max(0.5, 0.03 * u))
    return log_gain * face.border[::c, ::c]


SEAM_DEPTH, SEAM_WIDTH = 0.75, 0.045
"""Log darkening and width (cm) of the line between lips that the edit closed."""


def _seam(face: FaceLook, target: NDArray[np.float64], label: NDArray[np.int8]) -> Grid:
    """Darken the line where lips that were apart in the photo now meet."""
    u = face.frame.u
    out = np.zeros(face.frame.shape, np.float32)
    if not face.fit.lips.open:
        return out
    now = lips.mesh_curves(target, face.topology)
    share = now.along(now.x)
    was = np.interp(share, face.photo_lips.along(face.photo_lips.x), face.photo_lips.gap)
    closed = Ramp(0.05 * u, 0.2 * u)(was) * (1 - Ramp(0.0, 0.06 * u)(now.gap))
    line = (now.upper + now.lower) / 2
    x0, x1 = max(int(now.x[0]), 0), min(int(np.ceil(now.x[-1])) + 1, out.shape[1])
    y0 = max(int(line.min() - 0.3 * u), 0)
    y1 = min(int(line.max() + 0.3 * u) + 1, out.shape[0])
    if x1 <= x0 or y1 <= y0:
        return out
    xs = np.arange(x0, x1)
    centre = np.interp(xs, now.x, line)
    depth = np.interp(xs, now.x, closed) * Ramp(0.0, 0.35)(np.minimum(xs - now.x[0], now.x[-1] - xs) / u)
    off = (np.arange(y0, y1)[:, None] - centre[None]) / (SEAM_WIDTH * u)
    out[y0:y1, x0:x1] = -SEAM_DEPTH * 2.2 * depth[None] * (np.exp(-(off**2)) * 0.7 + 0.3 * np.exp(-((off / 3) ** 2)))
    return out * (label == parts.SKIN)


def _onto(target: NDArray[np.float64], topology: Topology, gap: NDArray[np.float64]):
    """Arguments for np.interp that carry ``gap``, sampled evenly along the plain mesh's mouth, to the posed mesh's."""
    now = lips.mesh_curves(target, topology)
    share = now.along(now.x)
    return share, np.linspace(0, 1, len(gap)), gap


def _normals(vertices: NDArray[np.float64], topology: Topology) -> NDArray[np.float64]:
    """Normals (V, 3) with y up of vertices in work coordinates."""
    return raster.vertex_normals(vertices * [1, -1, 1], topology.triangles)


def _light(
    picture: Grid,
    normal: Grid,
    skin: NDArray[np.bool_],
    likeness: Grid,
    landmarks: NDArray[np.float64],
) -> shading.Light:
    """Fit the light to skin between brows and jaw line; all on the coarse grid."""
    outline = np.concatenate([landmarks[0:17], landmarks[26:16:-1]])
    hull = np.zeros(skin.shape, np.uint8)
    cv2.fillPoly(hull, [np.round(outline).astype(np.int32)], 1)
    use = np.zeros(skin.shape, np.bool_)
    use[::2, ::2] = (skin & (hull > 0) & (likeness > 0.4))[::2, ::2]
    normals = normal[use]
    size = np.linalg.norm(normals, axis=-1)
    facing = (normals[:, 2] > 0.35 * size) & (size > 0.1)
    luminance = (picture[use][facing] @ LUMA) ** shading.GAMMA
    return shading.fit_light(luminance, normals[facing] / size[facing][:, None])
