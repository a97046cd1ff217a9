"""The paper's networks: parameter counts, shapes, the switches of the ablations, the layout of the authors' weights."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from exprtool.errors import UnknownNameError, UsageError  # noqa: E402
from exprtool_usgan import networks  # noqa: E402
from exprtool_usgan.config import DiscriminatorConfig, GeneratorConfig  # noqa: E402
from exprtool_usgan.networks import (  # noqa: E402
    Discriminator,
    Generator,
    HalvingConv,
    InstanceNorm,
    count_parameters,
)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def small(**changes: object) -> Generator:
    return Generator(GeneratorConfig(**{"labels": 3, "image_size": 32, "channels": 8, **changes}))  # type: ignore[arg-type]


def one_hot(label: int, n: int = 2, labels: int = 3):
    return torch.nn.functional.one_hot(torch.full((n,), label), labels).float()


def test_parameters_are_those_of_the_paper():
    with torch.device("meta"):
        assert count_parameters(Generator(GeneratorConfig(7))) == 2_533_440
        assert count_parameters(Generator(GeneratorConfig(7, residual_blocks=6))) == 8_436_800
        assert count_parameters(Discriminator(DiscriminatorConfig(7))) == 44_778_432


def test_names_and_shapes_are_those_of_the_authors_weights():
    """Worked out by hand from the layer order of the published code, whose keys are main.N.*."""
    with torch.device("meta"):
        found = {name: tuple(t.shape) for name, t in Generator(GeneratorConfig(7)).state_dict().items()}
    expected = {"main.0.weight": (64, 10, 7, 7), "main.3.weight": (128, 64, 4, 4), "main.6.weight": (256, 128, 4, 4)}
    expected |= {"main.9.main.0.weight": (256, 256, 3, 3), "main.9.main.3.weight": (256, 256, 3, 3)}
    expected |= {"main.10.weight": (256, 128, 4, 4), "main.13.weight": (128, 64, 4, 4), "main.16.weight": (3, 64, 7, 7)}
    norms = {"main.1": 64, "main.4": 128, "main.7": 256, "main.9.main.1": 256, "main.9.main.4": 256}
    norms |= {"main.11": 128, "main.14": 64}
    for name, channels in norms.items():
        expected |= {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}
    assert found == expected


def test_output_is_input_plus_what_the_decoder_says():
    generator, x, c = small(), torch.rand(2, 3, 32, 32) * 2 - 1, one_hot(1)
    maps = c[:, :, None, None].expand(-1, -1, 32, 32)
    torch.testing.assert_close(generator(x, c), generator.main(torch.cat([x, maps], 1)) + x)
    torch.testing.assert_close(generator.residual(x, c), generator(x, c) - x)


def test_zero_decoder_with_skip_changes_nothing():
    generator, x = small(), torch.rand(2, 3, 32, 32) * 2 - 1
    torch.nn.init.zeros_(generator.main[-2].weight)
    assert torch.equal(generator(x, one_hot(0)), x)


@pytest.mark.parametrize("tanh", ["before-skip", "after-skip", "none"])
@pytest.mark.parametrize("clamp", ["inference", "always"])
def test_where_tanh_and_clamp_stand(tanh: str, clamp: str):
    generator = small(tanh=tanh, clamp=clamp)
    with torch.no_grad():
        generator.main[16 if tanh != "before-skip" else -2].weight.fill_(3)  # a decoder that goes far beyond the range
    x, c = torch.full((2, 3, 32, 32), 0.5), one_hot(0)
    maps = c[:, :, None, None].expand(-1, -1, 32, 32)
    h = generator.main(torch.cat([x, maps], 1))
    uncut = {"before-skip": h + x, "after-skip": torch.tanh(h + x), "none": h + x}[tanh]
    torch.testing.assert_close(generator(x, c), uncut.clamp(-1, 1) if clamp == "always" else uncut)
    torch.testing.assert_close(generator.edit(x, c), uncut.clamp(-1, 1))
    torch.testing.assert_close(generator.residual(x, c), uncut - x)
    if tanh == "before-skip":
        assert h.abs().max() <= 1
    if tanh == "none":
        assert h.abs().max() > 1


def test_without_skip_the_input_is_not_added():
    generator, x, c = small(skip=False), torch.rand(2, 3, 32, 32), one_hot(2)
    maps = c[:, :, None, None].expand(-1, -1, 32, 32)
    y = generator.main(torch.cat([x, maps], 1))
    torch.testing.assert_close(generator(x, c), y)
    torch.testing.assert_close(generator.residual(x, c), y - x)


@pytest.mark.parametrize("blocks", [0, 1, 2, 6])
def test_residual_blocks(blocks: int):
    generator = small(residual_blocks=blocks)
    assert generator(torch.zeros(1, 3, 32, 32), one_hot(0, 1)).shape == (1, 3, 32, 32)
    assert count_parameters(generator) == count_parameters(small(residual_blocks=0)) + blocks * (18 * 32 * 32 + 4 * 32)


def test_images_need_not_be_square():
    x = torch.rand(1, 3, 24, 40)
    assert small()(x, one_hot(0, 1)).shape == x.shape


@pytest.mark.parametrize(("size", "layers", "patch"), [(64, 6, 1), (128, 6, 2), (256, 6, 4), (512, 6, 8), (32, 5, 1)])
def test_discriminator_of_every_size(size: int, layers: int, patch: int):
    discriminator = Discriminator(DiscriminatorConfig(7, size, 4, layers))
    score, logits = discriminator(torch.rand(2, 3, size, size))
    assert score.shape == (2, 1, patch, patch)
    assert logits.shape == (2, 7)
    torch.testing.assert_close(
        discriminator.score(torch.ones(1, 3, size, size)), discriminator(torch.ones(1, 3, size, size))[0]
    )


def test_instance_norm_is_the_textbook_one_and_keeps_no_statistics():
    norm, x = InstanceNorm(5), torch.randn(3, 5, 8, 6) * 3 + 1
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, unbiased=False)
    expected = (x - mean) / (var + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm(x.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-5)
    assert list(norm.state_dict()) == ["weight", "bias"]
    before = norm(x)
    assert torch.equal(norm.eval()(x), before)


def test_each_image_is_treated_alone():
    generator, x, c = small(), torch.rand(3, 3, 32, 32), one_hot(1, 3)
    torch.testing.assert_close(generator(x, c)[1:2], generator(x[1:2], c[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{"image_size": 30}, {"image_size": 1024}, {"residual_blocks": -1}, {"labels": 1}, {"channels": 0},
     {"skip": False, "tanh": "after-skip"}, {"residual_blocks": 1.5}],
)  # fmt: skip
def test_generators_that_cannot_be_built_are_refused(changes: dict[str, object]):
    with pytest.raises(UsageError):
        small(**changes)


def test_refusals_name_the_choices():
    with pytest.raises(UnknownNameError, match="before-skip"):
        small(tanh="elsewhere")
    with pytest.raises(UsageError, match="fewer layers"):
        DiscriminatorConfig(7, 32, 64, 6)


# --- the discriminator's last layers as matrix products --------------------------------------------------------------


@pytest.mark.parametrize("side", [2, 4, 8])
def test_small_maps_as_products_are_the_same_layer_to_the_bit(side: int):
    """On small whole numbers every sum is exact in float32, in whatever order: nothing but the same sums passes."""
    layer = HalvingConv(6, 10)
    x = torch.randint(-8, 9, (3, 6, side, side)).float().requires_grad_()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randint(-8, 9, parameter.shape))
    expected = torch.nn.functional.conv2d(x, layer.weight, layer.bias, stride=2, padding=1)
    found = layer(x)
    assert torch.equal(found, expected)
    g = torch.randint(-8, 9, expected.shape).float()
    inputs = (x, layer.weight, layer.bias)
    for a, b in zip(torch.autograd.grad(found, inputs, g), torch.autograd.grad(expected, inputs, g), strict=True):
        assert torch.equal(a, b)
    backwards = torch.nn.functional.conv_transpose2d(g, layer.weight, stride=2, padding=1)
    assert torch.equal(layer.input_gradient(g), backwards)
    (a,) = torch.autograd.grad(layer.input_gradient(g).square().sum(), layer.weight)
    (b,) = torch.autograd.grad(backwards.square().sum(), layer.weight)
    assert torch.equal(a, b)


def test_products_take_images_that_are_not_square(monkeypatch: pytest.MonkeyPatch):
    layer, x = HalvingConv(3, 4), torch.rand(2, 3, 4, 10)
    product, back = layer(x), layer.input_gradient(layer(x))
    monkeypatch.setattr(networks, "LARGEST_PRODUCT_SIDE", 0)
    torch.testing.assert_close(product, layer(x))
    torch.testing.assert_close(back, layer.input_gradient(layer(x)))
