"""Checkpoints of our own and of others: what is stored, what is refused, and that nothing in them is executed."""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from typer.testing import CliRunner  # noqa: E402

from exprtool.errors import ModelError, WriteError  # noqa: E402
from exprtool.faces.align import US_GAN_TEMPLATE, CropTemplate  # noqa: E402
from exprtool_usgan.card import METADATA_KEY, ModelCard  # noqa: E402
from exprtool_usgan.checkpoint import (  # noqa: E402
    find_checkpoint,
    load_discriminator,
    load_generator,
    read_card,
    save,
    save_generator,
)
from exprtool_usgan.config import GeneratorConfig  # noqa: E402
from exprtool_usgan.importing import import_checkpoint  # noqa: E402
from exprtool_usgan.networks import Generator  # noqa: E402

CONFIG = GeneratorConfig(7, channels=4)


def card(config: GeneratorConfig = CONFIG) -> ModelCard:
    labels = tuple(["neutral", "happy", "sad", "angry", "surprised", "disgusted", "afraid"])[: config.labels]
    return ModelCard(config, labels, CropTemplate((0.3, 0.4), (0.7, 0.4), (0.5, 0.8)), 12, "CC0", {"images": 3})


def authors_state(labels: int = 7, blocks: int = 1, channels: int = 8) -> dict[str, torch.Tensor]:
    """What the published code saves: our keys, and running statistics beside every norm."""
    state = dict(Generator(GeneratorConfig(labels, channels=channels, residual_blocks=blocks)).state_dict())
    for name in [name for name in state if name.endswith(".bias")]:
        stem = name.removesuffix("bias")
        state |= {
            stem + "running_mean": torch.rand(len(state[name])),
            stem + "running_var": torch.rand(len(state[name])),
        }
        state[stem + "num_batches_tracked"] = torch.tensor(5)
    return state


def test_generator_comes_back_with_its_card(tmp_path: Path):
    generator = Generator(CONFIG)
    save_generator(tmp_path / "g.safetensors", generator, card())
    loaded, found = load_generator(tmp_path / "g.safetensors")
    assert found == card()
    assert all(
        torch.equal(a, b) for a, b in zip(generator.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    assert not any(p.requires_grad for p in loaded.parameters())
    assert read_card(tmp_path / "g.safetensors").crop.mouth == (0.5, 0.8)


def test_average_is_preferred_and_can_be_refused(tmp_path: Path):
    raw, ema = Generator(CONFIG), Generator(CONFIG)
    path = tmp_path / "last.safetensors"
    save(path, {"generator": raw.state_dict(), "ema": ema.state_dict()}, {METADATA_KEY: card().to_json()})
    first = "main.0.weight"
    assert torch.equal(load_generator(path)[0].state_dict()[first], ema.state_dict()[first])
    assert torch.equal(load_generator(path, weights="raw")[0].state_dict()[first], raw.state_dict()[first])
    save_generator(path, raw, card())
    with pytest.raises(ModelError, match="holds no ema weights"):
        load_generator(path, weights="ema")


def test_run_folder_stands_for_its_best_checkpoint(tmp_path: Path):
    folder = tmp_path / "checkpoints"
    save_generator(folder / "last.safetensors", Generator(CONFIG), card())
    assert find_checkpoint(tmp_path).name == "last.safetensors"
    save_generator(folder / "best.safetensors", Generator(CONFIG), card())
    assert find_checkpoint(tmp_path).name == "best.safetensors"
    with pytest.raises(ModelError, match="holds no discriminator"):
        load_discriminator(tmp_path)
    with pytest.raises(ModelError, match="There is no"):
        find_checkpoint(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no checkpoint"):
        find_checkpoint(tmp_path / "empty")


@pytest.mark.parametrize("damage", ["garbage", "cut", "no card", "false card", "other network", "strange config"])
def test_files_that_are_not_what_they_say_are_refused(tmp_path: Path, damage: str):
    path = tmp_path / "x.safetensors"
    generator = Generator(CONFIG)
    save_generator(path, generator, card())
    if damage == "garbage":
        path.write_bytes(os.urandom(4000))
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "no card":
        save(path, {"generator": generator.state_dict()}, {})
    elif damage == "false card":
        save(path, {"generator": generator.state_dict()}, {METADATA_KEY: '{"format": "another"}'})
    elif damage == "strange config":
        strange = json.loads(card().to_json()) | {"generator": {"labels": 7, "channels": -4}}
        save(path, {"generator": generator.state_dict()}, {METADATA_KEY: json.dumps(strange)})
    else:  # a card that claims a network of terabytes: refused by its shapes, before anything is allocated
        big = replace(card(), generator=replace(CONFIG, channels=200_000))
        save(path, {"generator": generator.state_dict()}, {METADATA_KEY: big.to_json()})
    with pytest.raises(ModelError) as caught:
        load_generator(path)
    assert str(path) in str(caught.value)


def test_full_disk_leaves_the_old_checkpoint(tmp_path: Path):
    """A limit on the size of files stands for the full disk: writing fails in the middle."""
    path = tmp_path / "last.safetensors"
    save_generator(path, Generator(CONFIG), card())
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        with pytest.raises(WriteError, match=str(path)):
            save_generator(path, Generator(CONFIG), card())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.safetensors"]


class Bomb:
    """Unpickled, it creates a file: proof that code ran."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


def bombs(folder: Path, fuse: Path) -> list[Path]:
    """The same bomb as a bare pickle, in torch's old format, in its zip format, and beside real weights."""
    bare = folder / "bare.ckpt"
    bare.write_bytes(pickle.dumps({"main.0.weight": Bomb(fuse)}))
    old, new, mixed = folder / "old.ckpt", folder / "new.ckpt", folder / "mixed.ckpt"
    torch.save({"main.0.weight": Bomb(fuse)}, old, _use_new_zipfile_serialization=False)
    torch.save({"main.0.weight": Bomb(fuse)}, new)
    torch.save({**authors_state(), "extra": Bomb(fuse)}, mixed)
    return [bare, old, new, mixed]


def test_bombs_are_refused_and_do_not_go_off(tmp_path: Path):
    fuse = tmp_path / "exploded"
    for path in bombs(tmp_path, fuse):
        with pytest.raises(ModelError, match=path.name):
            import_checkpoint(path, folder=tmp_path / "models")
        assert not fuse.exists()
    assert not (tmp_path / "models").exists()


def test_tensors_that_claim_more_than_the_file_holds_are_refused(tmp_path: Path):
    """A view that repeats one stored number is a few bytes in the file and whatever it likes to be in memory."""
    for number, shape in enumerate([(1, 750_000_000), (10, 10**14), (64, 10, 7, 7)]):
        wide = {**authors_state(), "main.0.weight": torch.zeros(1).expand(shape)}
        torch.save(wide, path := tmp_path / f"{number}.ckpt")
        with pytest.raises(ModelError, match=r"main\.0\.weight claims the shape .* not in the file"):
            import_checkpoint(path, folder=tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_checkpoint_that_unpacks_to_more_than_it_is_is_refused(tmp_path: Path):
    torch.save(authors_state() | {"zeros": torch.zeros(5_000_000)}, stored := tmp_path / "stored.ckpt")
    packed = tmp_path / "packed.ckpt"
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(ModelError, match=r"would unpack from \d+ to \d+ bytes"):
        import_checkpoint(packed, folder=tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_a_pipe_is_no_checkpoint(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.ckpt")
    with pytest.raises(ModelError, match="pipe or a device"):
        import_checkpoint(tmp_path / "pipe.ckpt", folder=tmp_path)


def test_the_bomb_is_a_real_one(tmp_path: Path):
    """Opened carelessly it does go off; else the test above would prove nothing."""
    fuse = tmp_path / "exploded"
    torch.load(bombs(tmp_path, fuse)[2], weights_only=False)
    assert fuse.is_dir()


def test_bomb_through_a_safetensors_name_is_refused(tmp_path: Path):
    fuse, path = tmp_path / "exploded", tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Bomb(fuse)))
    with pytest.raises(ModelError, match="not a readable safetensors"):
        load_generator(path)
    assert not fuse.exists()


def test_authors_checkpoint(tmp_path: Path):
    state = authors_state()
    torch.save(state, tmp_path / "usgan_87_G.ckpt")
    target = import_checkpoint(tmp_path / "usgan_87_G.ckpt", folder=tmp_path / "models")
    assert target == tmp_path / "models" / "usgan_87_G.safetensors"
    generator, found = load_generator(target)
    assert found.labels == ("afraid", "angry", "disgusted", "happy", "neutral", "sad", "surprised")
    assert found.generator == GeneratorConfig(7, channels=8) and found.generator.skip
    assert found.crop == US_GAN_TEMPLATE
    assert "usgan_87_G.ckpt" in found.source
    for name, tensor in generator.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_stargan_checkpoint_has_no_skip(tmp_path: Path):
    state = {f"module.{name}": tensor for name, tensor in authors_state(8, 6).items()}
    torch.save(state, tmp_path / "200000-G.ckpt")
    _, found = load_generator(import_checkpoint(tmp_path / "200000-G.ckpt", folder=tmp_path))
    assert not found.generator.skip and found.generator.residual_blocks == 6
    assert found.labels[1] == "contemptuous" and found.labels[3] == "afraid"


def test_checkpoints_that_are_something_else(tmp_path: Path):
    def refused(content: object, match: str) -> None:
        torch.save(content, tmp_path / "x.ckpt")
        with pytest.raises(ModelError, match=match):
            import_checkpoint(tmp_path / "x.ckpt", folder=tmp_path / "models")

    refused(authors_state(5), "nothing in it says what they mean")
    refused({"conv1.weight": torch.zeros(1), "conv2.weight": torch.zeros(1)}, "discriminator")
    refused({"layer.weight": torch.zeros(2)}, "no generator")
    refused([1, 2], "no weights by name")
    refused({**authors_state(), "epoch": 3}, "no tensors")
    state = authors_state()
    state["main.3.weight"] = torch.zeros(2, 2, 4, 4)
    refused(state, "other layers")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(ModelError, match=r"text\.ckpt"):
        import_checkpoint(tmp_path / "text.ckpt")
    with zipfile.ZipFile(tmp_path / "zip.ckpt", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(ModelError, match=r"zip\.ckpt"):
        import_checkpoint(tmp_path / "zip.ckpt")
    with pytest.raises(ModelError, match="There is no file"):
        import_checkpoint(tmp_path / "nowhere.ckpt")


def test_import_at_the_command_line(tmp_path: Path, home: Path):
    from exprtool.cli.main import app

    torch.save(authors_state(5), tmp_path / "star.ckpt")
    labels = [part for name in ("happy", "sad", "angry", "fear", "neutral") for part in ("--label", name)]
    result = CliRunner().invoke(app, ["models", "import", str(tmp_path / "star.ckpt"), *labels])
    assert result.exit_code == 0, result.output
    assert "usgan:star" in result.output
    assert read_card(home / "models" / "usgan" / "star.safetensors").labels[3] == "afraid"
    fuse = tmp_path / "exploded"
    result = CliRunner().invoke(app, ["models", "import", str(bombs(tmp_path, fuse)[3])])
    assert isinstance(result.exception, ModelError) and "refused" in str(result.exception)
    assert not fuse.exists()
