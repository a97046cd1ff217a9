"""Batches cut on the device from bytes: what is mirrored, moved and coloured, and who gets which part."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from exprtool_gan.feed import Feed  # noqa: E402
from exprtool_gan.sampler import Sampler  # noqa: E402

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2] * 4, dtype=np.int64)


def test_pixels_by_hand():
    """Every picture of a batch, rebuilt in numpy from the sampler's choices."""
    sampler = Sampler(LABELS, 3, 4, shift=3, colour=0.2)
    feed = Feed(IMAGES, sampler, CPU)
    for step in (0, 1, 7, 64, 2):
        batch, draw = feed.batch(step), sampler.draw(step)
        assert batch.x_real.shape == (4, 3, 16, 16)
        assert batch.label_org.tolist() == LABELS[draw.index].tolist()
        assert batch.label_trg.tolist() == draw.target.tolist()
        for i in range(4):
            picture = IMAGES[draw.index[i]]
            if draw.flip[i]:
                picture = picture[:, ::-1]
            dx, dy = draw.shift[i]
            padded = np.pad(picture, ((3, 3), (3, 3), (0, 0)), mode="edge")
            # the clamp acts before the mirroring; at the border both repeat the same pixel
            moved = padded[3 - dy : 19 - dy, 3 + (dx if draw.flip[i] else -dx) :][:, :16]
            expected = np.clip((moved / 127.5 - 1) * draw.gain[i] + draw.offset[i], -1, 1)
            np.testing.assert_allclose(batch.x_real[i].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    feed.close()


def test_black_and_white_are_the_ends_of_the_range():
    images = np.stack([np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)])
    feed = Feed(images, Sampler(np.array([0, 1]), 2, 2, flip=0), CPU)
    assert sorted(feed.batch(0).x_real.mean((1, 2, 3)).tolist()) == [-1, 1]
    feed.close()


def test_a_set_that_stays_on_the_host_gives_the_same_batches():
    sampler = Sampler(LABELS, 3, 4)
    resident, fetched = Feed(IMAGES, sampler, CPU, resident=True), Feed(IMAGES, sampler, CPU, resident=False)
    assert resident.resident and not fetched.resident
    for step in [*range(5), 63, 64, 65, 130, 3]:
        assert torch.equal(resident.batch(step).x_real, fetched.batch(step).x_real)
    resident.close()
    fetched.close()


def test_processes_share_one_global_batch():
    sampler = Sampler(LABELS, 3, 4)
    whole, parts = Feed(IMAGES, sampler, CPU), [Feed(IMAGES, sampler, CPU, share=(rank, 2)) for rank in range(2)]
    for step in range(3):
        together = torch.cat([part.batch(step).x_real for part in parts])
        assert torch.equal(together, whole.batch(step).x_real)
        assert torch.equal(torch.cat([part.batch(step).epsilon for part in parts]), whole.batch(step).epsilon)
    for feed in (whole, *parts):
        feed.close()
