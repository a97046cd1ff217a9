"""One face on its working grid: what is known before any edit (`look`), and the maps that make an edit (`changes`).

The rooms meet here, in the order in which light meets a face: mesh (`raster`, `lips`), motion (`field`, `eyes`,
`occluders`), light (`shading`, `wrinkles`), and what was hidden before (`eyes`, `mouth`). Nothing in this module touches
the photo's own resolution; see `compose` for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.types import FaceRegion
from exprtool_blendshape import eyes, field, lips, mouth, occluders, raster, shading, wrinkles
from exprtool_blendshape import topology as parts
from exprtool_blendshape.fit import Fit
from exprtool_blendshape.frame import WorkFrame, work_frame
from exprtool_blendshape.tone import Tone, tone_of
from exprtool_blendshape.topology import Topology, topology_of

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
TEETH_STRETCH = 1.65
"""Teeth and gums are stretched downwards by this: an error in the pitch would show gum otherwise."""
INCISORS_BELOW_LIP = 0.12
"""cm that the upper incisors reach below the resting upper lip."""
FOREHEAD_FROM = 4.9
"""Template y above which only what looks like skin is shaded: there hair may hang over the face."""


@dataclass(frozen=True, eq=False)
class FaceLook:
    """Everything about one face that no edit changes. Pictures are (H, W, ...) on ``frame``'s working grid.

    ``picture`` is the photo, RGB in [0, 1]; ``lip_offset`` (V, 3) is what puts the source mesh's lips on the photo's;
    ``texture`` (V, 2) where each vertex takes its colour; ``normals`` (V, 3) those of the source mesh; ``cavity`` of the
    source surface; ``skin`` likeness in [0, 1].
    """

    region: FaceRegion
    fit: Fit
    frame: WorkFrame
    topology: Topology
    picture: NDArray[np.float32]
    photo_lips: lips.LipCurves
    source_lips: lips.LipCurves
    lip_offset: NDArray[np.float64]
    teeth_offset: NDArray[np.float64]
    texture: NDArray[np.float64]
    normals: NDArray[np.float64]
    cavity: NDArray[np.float32]
    light: shading.Light
    tone: Tone
    skin: NDArray[np.float32]
    glasses: occluders.Glasses | None
    own_lines: wrinkles.OwnLines
    lines: wrinkles.Lines
    eyes: dict[int, eyes.Eye]
    mouth: mouth.MouthPhoto
    border: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Changes:
    """An edit on the working grid (H, W): backward ``flow`` in work pixels (H, W, 2); ``log_gain`` of linear light; what is
    painted: ``alpha``, ``keep`` (how much of the photo's own pixel in place), ``colour`` (H, W, 3) for the rest, and
    ``shade`` on both."""

    flow: NDArray[np.float32]
    log_gain: NDArray[np.float32]
    alpha: NDArray[np.float32]
    keep: NDArray[np.float32]
    colour: NDArray[np.float32]
    shade: NDArray[np.float32]


def look(region: FaceRegion, fit: Fit) -> FaceLook:
    """Look at a fitted face once; the result serves every edit of it."""
    topology = topology_of(fit.model)
    frame = work_frame(fit.landmarks, fit.camera.scale, region.pixels.shape[:2])
    u = frame.u
    picture = frame.picture(region.pixels) / np.float32(255)
    landmarks = frame.points(fit.landmarks)

    plain = frame.points(fit.camera.project(fit.mesh(fit.source)))
    photo_lips = lips.curves(frame.points(fit.lips.upper), frame.points(fit.lips.lower))
    source = frame.points(fit.posed(fit.source))
    lip_offset = lips.on_photo(source, topology, photo_lips, u)
    source = source + lip_offset
    teeth_offset = _teeth_in_place(fit, frame, topology)
    texture = lips.texture(source, topology, photo_lips, u)
    normals = _normals(plain, topology)

    seen = raster.blank(frame.shape)
    raster.draw(seen, source, topology.triangles, 0, topology.outer)
    label = seen.labels(topology.label)
    shown = raster.interpolate(
        seen, topology.triangles, np.c_[topology.template, topology.front, normals]
    )
    template, front, normal = shown[..., :2], shown[..., 2], shown[..., 3:6]
    skin_mesh = label == parts.SKIN
    cavity = shading.cavity(seen.depth, skin_mesh & (front > 0.5), u)

    likeness = occluders.skin_likeness(picture, template, skin_mesh & (front > 0.5), u)
    light = _light(picture, normal, skin_mesh, likeness, landmarks)
    face = picture[skin_mesh & (front > 0.5)][::7]
    tone = tone_of(face) if len(face) > 50 else Tone(0.0, np.zeros((3, 2), np.float32))

    found: dict[int, eyes.Eye] = {}
    for part, ids in ((parts.EYE_RIGHT, slice(36, 42)), (parts.EYE_LEFT, slice(42, 48))):
        eye = eyes.complete(picture, label == part, landmarks[ids], u)
        if eye is not None:
            found[part] = eye
    whites = [eye.white for eye in found.values() if eye.white is not None]
    inside = mouth.look_at(
        picture, photo_lips, fit.lips.open, fit.lips.teeth, np.mean(whites, 0) if whites else None, u
    )
    own = wrinkles.measure(
        picture, template, likeness * (skin_mesh & (front > 0.5)), u, detail_cm=1 / fit.camera.scale
    )
    return FaceLook(
        region=region,
        fit=fit,
        frame=frame,
        topology=topology,
        picture=picture,
        photo_lips=photo_lips,
        source_lips=lips.mesh_curves(plain, topology),
        lip_offset=lip_offset,
        teeth_offset=teeth_offset,
        texture=texture,
        normals=normals,
        cavity=cavity,
        light=light,
        tone=tone,
        skin=likeness,
        glasses=occluders.glasses(picture, landmarks, u),
        own_lines=own,
        lines=wrinkles.lay_out(int(abs(float(fit.identity[0])) * 997) % 997),
        eyes=found,
        mouth=inside,
        border=field.at_border(frame.shape, u),
    )


def changes(face: FaceLook, weights: Mapping[str, float]) -> Changes:
    """The maps of an edit to absolute control ``weights``."""
    fit, frame, topology = face.fit, face.frame, face.topology
    u = frame.u
    plain = frame.points(fit.camera.project(fit.mesh(weights)))
    target = frame.points(fit.posed(weights)) + face.lip_offset
    gap = lips.wanted_gap(face.photo_lips, face.source_lips, lips.mesh_curves(plain, topology), u)
    target = lips.settled(target, topology, np.interp(*_onto(target, topology, gap)), u)
    target = target + face.teeth_offset
    normals = _normals(plain, topology)

    seen = raster.blank(frame.shape)
    raster.draw(seen, target, topology.triangles, 0, topology.outer)
    through_lips = seen.labels(topology.label) == parts.MOUTH
    raster.draw(seen, target, topology.triangles, topology.outer, within=through_lips)
    label = seen.labels(topology.label)
    shown = raster.interpolate(
        seen,
        topology.triangles,
        np.c_[face.texture - target[:, :2], topology.front, topology.template, face.normals, normals],
    )
    front = shown[..., 2]
    skin_mesh = label == parts.SKIN
    known = skin_mesh & (front > 0.5)

    flow = field.extended(shown[..., :2], known, u)
    for part in face.eyes:
        eyes.carry_lashes(flow, label == part, u)
    if face.glasses is not None:
        flow = occluders.hold(flow, face.glasses.frame)
    flow = flow * face.border[..., None]

    before, after = wrinkles.drivers(fit.source), wrinkles.drivers(weights)
    log_gain = _shading(face, seen, known, shown, label, flow, u)
    log_gain += _lines(face, before, after, known, shown, flow, u)
    holes = (label != parts.SKIN) & (label >= 0) & (label != parts.NOSTRIL)
    eye_hole = np.isin(label, (parts.EYE_LEFT, parts.EYE_RIGHT))
    near_eyes = np.clip(4 * cv2.GaussianBlur(eye_hole.astype(np.float32), (0, 0), 0.45 * u), 0, 1)
    log_gain = shading.limited(log_gain, near_eyes)
    log_gain = cv2.GaussianBlur(log_gain, (0, 0), 0.8) * face.border
    log_gain = log_gain + _seam(face, target, holes, u)
    if face.glasses is not None:
        log_gain = log_gain * (1 - face.glasses.frame)
    return _painted(face, seen, label, shown, target, gap, flow, log_gain, u)


def _painted(face, seen, label, shown, target, gap, flow, log_gain, u) -> Changes:
    alpha = np.zeros(face.frame.shape, np.float32)
    keep = np.zeros_like(alpha)
    shade = np.ones_like(alpha)
    colour = np.zeros((*face.frame.shape, 3), np.float32)
    for part, eye in face.eyes.items():
        drawn = eyes.paint(eye, label == part, flow, u)
        w = drawn.window
        alpha[w] = np.maximum(alpha[w], drawn.alpha)
        keep[w], shade[w], colour[w] = drawn.keep, drawn.shade, drawn.colour
    middle = slice(len(gap) // 5, -(len(gap) // 5))
    own = np.interp(np.linspace(0, 1, len(gap)), face.photo_lips.along(face.photo_lips.x), face.photo_lips.gap)
    widening = float(np.mean(np.maximum(gap, 0)[middle] - np.maximum(own, 0)[middle])) / u
    lip_depth = float(target[face.topology.edge_upper[len(face.topology.edge_upper) // 2], 2])
    inside = mouth.paint(face.mouth, label, seen.depth, shown[..., 8:11], lip_depth, widening, u)
    if inside is not None:
        w = inside.window
        alpha[w] = np.maximum(alpha[w], inside.alpha)
        over = inside.alpha > 0
        keep[w] = np.where(over, inside.keep, keep[w])
        colour[w] = np.where(over[..., None], inside.colour, colour[w])
    colour = face.tone(np.clip(colour, 0, 1))
    if face.glasses is not None:
        alpha = alpha * (1 - face.glasses.frame)
    return Changes(flow, log_gain, alpha * face.border, keep, colour, shade)


def _shading(face, seen, known, shown, label, flow, u) -> NDArray[np.float32]:
    """Log ratio from the turned surface and its folds, faded at the rims of skin and off what is not skin."""
    ratio = shading.log_ratio(face.light, shown[..., 5:8], shown[..., 8:11])
    now = shading.cavity(seen.depth, known, u)
    then = field.sample(face.cavity, flow)
    folds = np.clip(now - then, -0.10, 0.5)
    holes = (label != parts.SKIN) & (label >= 0)
    inner = cv2.erode(known.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.float32)
    weight = cv2.GaussianBlur(inner, (0, 0), 0.10 * u) * known
    weight *= np.clip(1 - 1.6 * cv2.GaussianBlur(holes.astype(np.float32), (0, 0), 0.08 * u), 0, 1)
    weight *= _skin_here(face, shown, flow)
    ratio = cv2.GaussianBlur(ratio, (0, 0), 0.06 * u)
    return (weight * (ratio - shading.CAVITY_STRENGTH * folds)).astype(np.float32)


def _skin_here(face: FaceLook, shown: NDArray[np.float32], flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Skin likeness at each target pixel, counted on the forehead only: below it beards and shadows are skin too."""
    high = np.clip((shown[..., 4] - FOREHEAD_FROM) / 0.8, 0, 1)
    return 1 - high * (1 - field.sample(face.skin, flow))


def _lines(face, before, after, known, shown, flow, u) -> NDArray[np.float32]:
    own = face.own_lines
    skin = field.sample(face.skin, flow) * known
    change = {name: after[name] - before[name] for name in after}
    amount = wrinkles.AMPLITUDE * (0.30 + 0.70 * own.lined) * (0.55 + 0.45 * own.sharp)
    least = 1.1 / face.fit.camera.scale
    drawn = wrinkles.drawn(face.lines, change, np.ascontiguousarray(shown[..., 3:5]), skin, least)
    kept = field.sample(wrinkles.own_change(own, before, after), flow) * known
    return np.float32(amount) * drawn + kept


SEAM_DEPTH, SEAM_WIDTH = 0.75, 0.045
"""Log darkening and width (cm) of the line between lips that the edit closed."""


def _seam(face: FaceLook, target: NDArray[np.float64], holes: NDArray[np.bool_], u: float) -> NDArray[np.float32]:
    """Darken the line where lips that were apart in the photo now meet."""
    out = np.zeros(face.frame.shape, np.float32)
    if not face.fit.lips.open:
        return out
    now = lips.mesh_curves(target, face.topology)
    share = now.along(now.x)
    was = np.interp(share, face.photo_lips.along(face.photo_lips.x), face.photo_lips.gap)
    closed = lips.smoothstep(was, 0.05 * u, 0.2 * u) * (1 - lips.smoothstep(now.gap, 0.0, 0.06 * u))
    line = (now.upper + now.lower) / 2
    x0, x1 = max(int(now.x[0]), 0), min(int(np.ceil(now.x[-1])) + 1, out.shape[1])
    y0 = max(int(line.min() - 0.3 * u), 0)
    y1 = min(int(line.max() + 0.3 * u) + 1, out.shape[0])
    if x1 <= x0 or y1 <= y0:
        return out
    xs = np.arange(x0, x1)
    centre = np.interp(xs, now.x, line)
    depth = np.interp(xs, now.x, closed) * lips.smoothstep(np.minimum(xs - now.x[0], now.x[-1] - xs) / u, 0.0, 0.35)
    off = (np.arange(y0, y1)[:, None] - centre[None]) / (SEAM_WIDTH * u)
    out[y0:y1, x0:x1] = -SEAM_DEPTH * 2.2 * depth[None] * (np.exp(-(off**2)) * 0.7 + 0.3 * np.exp(-((off / 3) ** 2)))
    return out * ~holes


def _onto(target: NDArray[np.float64], topology: Topology, gap: NDArray[np.float64]):
    """Arguments for np.interp that carry ``gap``, sampled evenly along the plain mesh's mouth, to the posed mesh's."""
    now = lips.mesh_curves(target, topology)
    share = now.along(now.x)
    return share, np.linspace(0, 1, len(gap)), gap


def _teeth_in_place(fit: Fit, frame: WorkFrame, topology: Topology) -> NDArray[np.float64]:
    """Offset (V, 3) that hangs the teeth behind the resting upper lip, stretched downwards, centred behind the mouth."""
    rest = frame.points(fit.posed({}))
    inner = np.unique(topology.triangles[topology.outer :])
    edge = lips.mesh_curves(rest, topology)
    centre = (edge.x[0] + edge.x[-1]) / 2
    incisors = rest[topology.upper_incisors]
    bottom = float(incisors[:, 1].max())
    wanted = float(np.interp(centre, edge.x, edge.upper)) + INCISORS_BELOW_LIP * frame.u
    offset = np.zeros_like(rest)
    offset[inner, 1] = wanted + (rest[inner, 1] - bottom) * TEETH_STRETCH - rest[inner, 1]
    offset[inner, 0] = 0.5 * (centre - float(incisors[:, 0].mean()))
    return offset


def _normals(vertices: NDArray[np.float64], topology: Topology) -> NDArray[np.float64]:
    """Normals (V, 3) with y up of vertices in work coordinates."""
    return raster.vertex_normals(vertices * [1, -1, 1], topology.triangles)


def _light(
    picture: NDArray[np.float32],
    normal: NDArray[np.float32],
    skin: NDArray[np.bool_],
    likeness: NDArray[np.float32],
    landmarks: NDArray[np.float64],
) -> shading.Light:
    """Fit the light to skin between brows and jaw line."""
    outline = np.concatenate([landmarks[0:17], landmarks[26:16:-1]])
    hull = np.zeros(skin.shape, np.uint8)
    cv2.fillPoly(hull, [np.round(outline).astype(np.int32)], 1)
    use = np.zeros(skin.shape, np.bool_)
    use[::3, ::3] = True
    size = np.linalg.norm(normal, axis=-1)
    use &= skin & (hull > 0) & (likeness > 0.4) & (normal[..., 2] > 0.35 * size) & (size > 0.1)
    luminance = (picture[use] @ _LUMA) ** shading.GAMMA
    return shading.fit_light(luminance, normal[use] / size[use][:, None])
