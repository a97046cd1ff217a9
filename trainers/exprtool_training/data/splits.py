"""Dividing people, never pictures, into training, validation and test set.

The paper keeps 10 % of the images for testing and does not say how; pictures of one person on both sides would make
the measures flatter. Here a person's side follows from a hash of the name alone, so that it does not move when people
are added, files are renamed or the order changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

TRAIN, VALIDATION, TEST = "train", "validation", "test"


def side_of(person: str, *, test_fraction: float = 0.1, seed: int = 0) -> str:
    """``"test"`` for about ``test_fraction`` of all names, ``"train"`` for the rest; the same in every run."""
    return TEST if _position(person, seed) < test_fraction else TRAIN


def split_people(people: Iterable[str], *, test_fraction: float = 0.1, seed: int = 0) -> dict[str, str]:
    """The side of each person.

    With few people the hash may leave one side empty; then the person who stands nearest to the border changes
    sides, so that there is somebody to train on and somebody to test with (given two people and a fraction strictly
    between 0 and 1).
    """
    names = sorted(set(people))
    sides = {name: side_of(name, test_fraction=test_fraction, seed=seed) for name in names}
    if len(names) >= 2 and 0 < test_fraction < 1:
        for wanted, nearest in ((TEST, min), (TRAIN, max)):
            if wanted not in sides.values():
                sides[nearest(names, key=lambda name: _position(name, seed))] = wanted
    return sides


def validation_people(people: Iterable[str], *, fraction: float, seed: int = 0) -> frozenset[str]:
    """The training people on whom a checkpoint is chosen: nothing is learned from them, nothing is reported on them.

    About ``fraction`` of the names, and at least one where there are two or more and the fraction is above 0. The
    choice is independent of that of the test people.
    """
    names = sorted(set(people))
    if not 0 < fraction < 1 or len(names) < 2:
        return frozenset()
    positions = {name: _position(name, seed, VALIDATION) for name in names}
    chosen = {name for name in names if positions[name] < fraction} or {min(names, key=positions.__getitem__)}
    if len(chosen) == len(names):
        chosen.remove(max(names, key=positions.__getitem__))
    return frozenset(chosen)


def _position(person: str, seed: int, purpose: str = "split") -> float:
    """Where a name falls in [0, 1), as if drawn at random, for each purpose anew."""
    digest = hashlib.sha256(f"exprtool {purpose} {seed}\0{person}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
