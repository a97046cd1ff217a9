"""The reader: what landmarks say is worn, learned from faces whose weights are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from exprtool.anatomy.names import CONTROLS  # noqa: E402
from exprtool.faces.landmarks import MIRRORED68  # noqa: E402
from exprtool_flow.augment import MIRRORED  # noqa: E402
from exprtool_flow.points import mean_points  # noqa: E402
from exprtool_flow.reading import fit_reader  # noqa: E402

SIDE = 100
SMILES = [CONTROLS.index("mouthSmileLeft"), CONTROLS.index("mouthSmileRight")]
CORNERS = (54, 48)  # of the mouth: the left one's smile moves the first


def landmarks(smile: tuple[float, float], random: np.random.Generator) -> np.ndarray:
    """A face of somebody (68, 2), in pixels, whose mouth's corners rise with the smile."""
    points = SIDE * (mean_points().numpy() + 0.004 * random.standard_normal((68, 2))) - 0.5
    for corner, amount in zip(CORNERS, smile, strict=True):
        points[corner, 1] -= 6 * amount
    return points.astype(np.float32)


def weights(smile: tuple[float, float]) -> np.ndarray:
    worn = np.zeros(len(CONTROLS), np.float32)
    worn[SMILES] = smile
    return worn


class Faces(list):
    size = SIDE


def faces(count: int, *, claimed_by_renders: float = 1.0) -> Faces:
    """Pairs as far as the reader looks at them; renders say that they smile so many times as much as they show."""
    random = np.random.default_rng(3)
    made = Faces()
    for index in range(count):
        smiles = [tuple(random.uniform(0, 1, 2)) for _ in range(3)]
        drawn = index % 2
        made.append(
            SimpleNamespace(
                source_drawn=np.array([drawn], np.uint8),
                source_points=landmarks(smiles[0], random),
                source_weights=weights(smiles[0]) * (claimed_by_renders if drawn else 1),
                target_points=landmarks(smiles[1], random),
                target_weights=weights(smiles[1]) * claimed_by_renders,
                other_points=landmarks(smiles[2], random),
                other_weights=weights(smiles[2]),
            )
        )
    return made


def typical() -> torch.Tensor:
    each = torch.zeros(4, len(CONTROLS))
    each[0, SMILES[0]] = each[1, SMILES[1]] = 0.01
    return each


def read(reader: torch.nn.Module, smile: tuple[float, float]) -> np.ndarray:
    at = (landmarks(smile, np.random.default_rng(99)) + 0.5) / SIDE
    return reader(torch.from_numpy(at)[None])[0].numpy()


def test_what_is_worn_is_read_of_either_side() -> None:
    reader = fit_reader(faces(600), range(600), len(CONTROLS), typical(), seed=0)
    for smile in ((0.0, 0.0), (0.8, 0.1), (0.2, 0.9)):
        found = read(reader, smile)
        assert found[SMILES] == pytest.approx(smile, abs=0.15), smile
        assert np.abs(np.delete(found, SMILES)).max() < 0.1
    assert not any(parameter.requires_grad for parameter in reader.parameters())


def test_a_mirrored_face_is_read_mirrored() -> None:
    reader = fit_reader(faces(600), range(600), len(CONTROLS), typical(), seed=0)
    at = torch.from_numpy((landmarks((0.7, 0.2), np.random.default_rng(5)) + 0.5) / SIDE)[None]
    across = at[:, torch.from_numpy(MIRRORED68.copy())].clone()
    across[..., 0] = 1 - across[..., 0]
    np.testing.assert_allclose(reader(across)[0], reader(at)[0][MIRRORED], atol=0.1)


def test_portraits_count_more_than_renders_that_claim_something_else() -> None:
    reader = fit_reader(faces(600, claimed_by_renders=0.0), range(600), len(CONTROLS), typical(), seed=0)
    assert read(reader, (0.8, 0.8))[SMILES].mean() > 0.55, "two of four claim 0, and count a tenth"


def test_readings_teach_instead_of_the_set() -> None:
    pairs, random = faces(20), np.random.default_rng(8)
    for pair in pairs:
        pair.source_weights[:] = pair.target_weights[:] = 9.0
    smiles = random.uniform(0, 1, (600, 2))
    points = np.stack([(landmarks((a, b), random) + 0.5) / SIDE for a, b in smiles])
    worn = np.stack([weights((a, b)) for a, b in smiles])
    reader = fit_reader(pairs, range(20), len(CONTROLS), typical(), 0, (points, worn))
    assert read(reader, (0.8, 0.1))[SMILES] == pytest.approx((0.8, 0.1), abs=0.15)


def test_only_members_teach_and_a_seed_repeats_it() -> None:
    some = faces(120)
    first = fit_reader(some, range(60), len(CONTROLS), typical(), seed=4)
    for pair in some[60:]:
        pair.source_weights[:] = pair.target_weights[:] = pair.other_weights[:] = 9.0
    again = fit_reader(some, range(60), len(CONTROLS), typical(), seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
