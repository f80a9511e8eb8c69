"""Dynamic convolutions by Triton against the backend `grouped`, without a GPU."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ecd_deploy.distill import DynamicConv2d, TeacherOptions, build_objective
from ecd_deploy.distill.convolution import dynamic_conv
from ecd_deploy.distill.convolution.triton import check as triton_check
from ecd_deploy.distill.convolution.triton import mixing_operators as triton_mixing_operators
from ecd_deploy.distill.convolution.triton import operators as triton_operators
from ecd_deploy.distill.convolution.triton import references as triton_references
from ecd_deploy.distill.convolution.triton.convolution import Offer
from ecd_deploy.models import build_student
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.training.methods import build_training_model
from tests.fake_cuda import move
from tests.triton_launches import forget_checks, interpreting, standing_in
from tests.variants import VARIANTS

QUICK: list[dict[str, Any]] = [
    {"in_channels": 6, "out_channels": 10, "kernel_size": 3, "padding": 1, "stride": 2, "groups": 2},
    {"in_channels": 5, "out_channels": 4, "kernel_size": 1, "bias": False},
]
CASES: list[dict[str, Any]] = [
    {"in_channels": 16, "out_channels": 16, "kernel_size": 3, "padding": 1, "bias": False},
    {"in_channels": 16, "out_channels": 32, "kernel_size": 3, "padding": 1, "stride": 2, "bias": False},
    {"in_channels": 80, "out_channels": 70, "kernel_size": 3, "padding": 1, "bias": False},
    {"in_channels": 40, "out_channels": 3, "kernel_size": 1, "stride": 2},
    {"in_channels": 5, "out_channels": 7, "kernel_size": 3, "stride": 2},
    {"in_channels": 4, "out_channels": 8, "kernel_size": (3, 5), "stride": (2, 1), "padding": (0, 2)},
    {"in_channels": 8, "out_channels": 8, "kernel_size": 5, "groups": 8, "padding": 2, "stride": 2},
    {"in_channels": 3, "out_channels": 4, "kernel_size": 3, "dilation": (1, 2), "padding": 2},
]
HALF = {torch.bfloat16: 2e-2, torch.float16: 3e-3}


def make_layer(case: dict[str, Any], dtype: torch.dtype = torch.float64, **options: Any) -> DynamicConv2d:
    torch.manual_seed(0)
    options = {"kernels": 5, "reduction": 2, "temperature": 0.5, "mixture": "balanced", "backend": "triton", **options}
    return DynamicConv2d(nn.Conv2d(**case, dtype=dtype), TeacherOptions(**options))


def results(layer: DynamicConv2d, images: Tensor, backend: Any) -> list[Tensor]:
    """Output and every gradient, and a check that the backend was the one that is asked for."""
    layer.backend = backend
    images = images.clone().requires_grad_()
    output = layer(images)
    assert ("_DynamicConvolution" in str(output.grad_fn)) is (backend == "triton")
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = torch.autograd.grad(output, [images, *layer.parameters()], direction.to(output))
    return [output.detach(), *gradients]


def assert_near(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert other.norm() > 0
        assert (one.double() - other.double()).norm() <= tolerance * other.double().norm()


@pytest.mark.needs("triton")
@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        *((case, torch.float64) for case in QUICK),
        *(pytest.param(case, torch.float64, marks=pytest.mark.slow) for case in CASES),
        *(pytest.param(case, torch.float32, marks=pytest.mark.slow) for case in (*QUICK, *CASES)),
    ],
    ids=str,
)
def test_output_and_gradients_are_those_of_the_grouped_backend(
    case: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interpreted: it shows indices, masks and formulas, and neither speed nor what a GPU rounds."""
    monkeypatch.setattr(triton_mixing_operators, "_PART_COLUMNS", 16)  # so that there are several parts
    layer = make_layer(case, dtype)
    images = 3 * torch.randn(3, case["in_channels"], 9, 8, dtype=dtype)
    with interpreting():
        found = results(layer, images, "triton")
    assert_near(found, results(layer, images, "grouped"), 1e-12 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("case", [*QUICK, *CASES], ids=str)
def test_what_is_computed_around_the_launches_is_right(case: dict[str, Any]) -> None:
    layer = make_layer(case)
    images = 3 * torch.randn(3, case["in_channels"], 9, 8, dtype=torch.float64)
    with standing_in():
        found = results(layer, images, "triton")
    assert_near(found, results(layer, images, "grouped"), 1e-12)


@pytest.mark.needs("triton")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "kernels", "samples", "places"), [(40, 20, 70, (3, 3)), (16, 2, 1, (1, 1)), (300, 17, 5, (12, 12))]
)
def test_the_router_has_any_size(channels: int, kernels: int, samples: int, places: tuple[int, int]) -> None:
    layer = make_layer({"in_channels": channels, "out_channels": 2, "kernel_size": 1}, kernels=kernels, reduction=1)
    images = torch.randn(samples, channels, *places, dtype=torch.float64)
    with interpreting():
        found = results(layer, images, "triton")
    assert_near(found, results(layer, images, "grouped"), 1e-12)


@pytest.mark.needs("triton")
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_autocast_gives_half_precision_and_gradients_in_full(dtype: torch.dtype) -> None:
    layer = make_layer(QUICK[0], torch.float32)
    nn.init.zeros_(layer.expand.weight)  # the gradient of a router is a small difference of large numbers
    images = torch.randn(3, 6, 6, 6)
    with interpreting(), torch.autocast("cpu", dtype):
        found = results(layer, images, "triton")
    assert found[0].dtype == dtype
    assert {gradient.dtype for gradient in found[1:]} == {torch.float32}
    expected = results(layer, images, "grouped")
    assert_near(found[:4], expected[:4], HALF[dtype])


@pytest.mark.needs("triton")
@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("element", "precision"), [("fp32", "ieee"), ("fp32", "tf32"), ("bf16", "ieee"), ("fp16", "ieee")]
)
def test_the_kernels_compile_for_gpus_and_use_their_tensor_cores(element: str, precision: str, capability: int) -> None:
    """Triton compiles to machine code without a GPU; in a process of its own, for its interpreter leaves traces."""
    words = (sys.executable, "-m", "tests.compile_triton", element, precision, str(capability))
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    products = ["convolve", "differentiate_features", "differentiate_weights"]
    assert found == ([] if (element, precision) == ("fp32", "ieee") else products)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
@pytest.mark.parametrize("case", [*QUICK, *CASES], ids=str)
def test_on_a_gpu_every_launch_agrees_with_torch(case: dict[str, Any], dtype: torch.dtype, rounds: bool) -> None:
    layer = make_layer(case, torch.float32).cuda()
    nn.init.zeros_(layer.expand.weight)
    images = torch.randn(20, case["in_channels"], 33, 32, device="cuda")
    forget_checks()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=rounds):
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            found = results(layer, images, "triton")
        expected = results(layer.cpu(), images.cpu(), "grouped")
    assert triton_check.reasons_unused() == ()
    count = 3 if layer.bias is None else 4
    limit = HALF.get(dtype, 3e-3 if rounds else 1e-4)
    assert_near([one.cpu() for one in found[:count]], expected[:count], limit)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_cpu_gets_the_grouped_backend_and_a_word(caplog: pytest.LogCaptureFixture) -> None:
    forget_checks()
    layer = make_layer(QUICK[0])
    images = torch.randn(3, 6, 9, 8, dtype=torch.float64)
    found = [layer(images) for _ in range(2)][1]
    layer.backend = "grouped"
    assert torch.equal(found, layer(images))
    (line,) = caplog.messages
    assert "method.backend 'triton' is not used, and 'grouped' takes its place: " in line


def room_of(name: str) -> Any:
    return next(room for room in (triton_operators, triton_mixing_operators) if hasattr(room, name))


@pytest.fixture
def _standing_in() -> Iterator[None]:
    with standing_in():
        yield


@pytest.mark.usefixtures("_standing_in")
@pytest.mark.parametrize(
    ("name", "share"),
    list(itertools.product(("convolve_samples", "differentiate_weights", "mix"), (1e-3, float("nan")))),
)
def test_a_launch_that_is_wrong_is_not_used(
    name: str, share: float, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: one number of a result."""

    def wrong(*arguments: Any) -> Any:
        found = getattr(triton_references, name)(*arguments)
        first = found if isinstance(found, Tensor) else found[0]
        first.view(-1)[-1] += share * first.norm()
        return found

    monkeypatch.setattr(room_of(name), name, wrong)
    layer, images = make_layer(QUICK[0]), torch.randn(3, 6, 9, 8, dtype=torch.float64)
    found = layer(images)
    assert f"{name} differs from torch's own result by" in caplog.text
    layer.backend = "grouped"
    assert torch.equal(found, layer(images))


@pytest.mark.usefixtures("_standing_in")
def test_a_launch_that_fails_is_not_used(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any) -> Tensor:
        raise RuntimeError("out of resource: shared memory\nand more")

    monkeypatch.setattr(triton_mixing_operators, "mix", fail)
    assert make_layer(QUICK[0])(torch.randn(3, 6, 9, 8, dtype=torch.float64)).shape == (3, 10, 5, 4)
    (line,) = caplog.messages
    assert line.endswith("RuntimeError: out of resource: shared memory")


@pytest.mark.usefixtures("_standing_in")
def test_a_shape_is_checked_once_and_leaves_torchs_random_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make_layer(QUICK[0])
    checked: list[triton_check.LayerShape] = []
    find = triton_check._find_difference

    def counted(shape: triton_check.LayerShape) -> str | None:
        checked.append(shape)
        return find(shape)

    monkeypatch.setattr(triton_check, "_find_difference", counted)
    before = torch.get_rng_state()
    for samples in (3, 3, 2):
        layer(torch.ones(samples, 6, 9, 8, dtype=torch.float64))
    layer(torch.ones(3, 6, 7, 8, dtype=torch.float64))
    assert [shape.features[2:] for shape in checked] == [(9, 8), (7, 8)]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("_standing_in")
@pytest.mark.parametrize("case", [{"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}], ids=str)
def test_other_paddings_are_left_to_the_grouped_backend(case: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    layer = make_layer({"in_channels": 3, "out_channels": 4, "kernel_size": 3, **case})
    assert layer(torch.randn(2, 3, 5, 5, dtype=torch.float64)).shape == (2, 4, 5, 5)
    assert "pads otherwise" in caplog.text


def test_tensors_without_data_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they do where a program is exported or its memory is planned; what is on CUDA stays there."""
    monkeypatch.setattr(dynamic_conv, "is_trusted", lambda _shape: True)
    layer = make_layer(QUICK[0], torch.float32)
    with FakeTensorMode(allow_non_fake_inputs=True):
        move(layer)
        output = layer(torch.empty(3, 6, 9, 8, device="cuda"))
    assert output.shape == (3, 10, 5, 4)
    assert output.device.type == "cuda"
    assert not output._is_view()


@pytest.mark.needs("triton")
@pytest.mark.parametrize(
    ("outputs", "stride", "groups", "kinds"),
    [
        (10, 2, 2, (False, True)),
        pytest.param(70, 1, 1, (False, True), marks=pytest.mark.slow),
        *(pytest.param(6, 2, 1, (kind,), marks=pytest.mark.slow) for kind in (False, True)),
    ],
    ids=str,
)
def test_a_convolution_computes_connections(outputs: int, stride: int, groups: int, kinds: tuple[bool, ...]) -> None:
    """One that is added to its output, and one that is not; with every gradient."""
    case = {"in_channels": 6, "out_channels": outputs, "kernel_size": 3, "padding": 1}
    layer = make_layer({**case, "stride": stride, "groups": groups})
    size = (2, outputs, 3, 3) if stride == 2 else (2, outputs, 5, 5)
    images, *features = (torch.randn(shape, dtype=torch.float64) for shape in [(2, 6, 5, 5), *[size] * len(kinds)])
    weights = [torch.randn(outputs, outputs, 1, 1, dtype=torch.float64) for _ in kinds]
    inputs = [one.requires_grad_() for one in (images, *features, *weights)]

    def offers() -> tuple[Offer, ...]:
        each = zip(features, weights, kinds, strict=True)
        return tuple(Offer(student=one, weight=weight, is_later=is_later) for one, weight, is_later in each)

    layer.offered = offered = offers()
    with interpreting():
        output = layer(images)
        assert all(offer.is_taken for offer in offered)
        products = [offer.product for offer in offered if offer.product is not None]
        found = gradients_of([output, *products], [*inputs, *layer.parameters()])
    layer.backend = "grouped"
    wanted, later = layer(images), list[Tensor]()
    for offer in offers():
        product = F.conv2d(offer.student, offer.weight)
        wanted, later = (wanted, [product]) if offer.is_later else (wanted + product, later)
    expected = gradients_of([wanted, *later], [*inputs, *layer.parameters()])
    assert_near([output, *products, *found], [wanted, *later, *expected], 1e-12)


def gradients_of(outputs: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    directions = [torch.randn(one.shape, generator=draw, dtype=one.dtype) for one in outputs]
    return list(torch.autograd.grad(outputs, inputs, directions))


def resnet8() -> nn.Module:
    return build_student("resnet8", num_classes=4)


def bottlenecks() -> nn.Module:
    """Blocks that end in a convolution of another size, which stays as it is."""
    models = pytest.importorskip("torchvision.models.resnet")
    network: nn.Module = models.ResNet(models.Bottleneck, [1, 1, 1, 1], num_classes=4)
    return network


@pytest.mark.usefixtures("_standing_in")
@pytest.mark.parametrize(
    ("name", "student", "connected"),
    [
        ("ecd", resnet8, (4, 2)),
        *((name, resnet8, (0, 0)) for name in ("dense", "direct", "conv1x1_bn", "started")),
        pytest.param("ecd", bottlenecks, (2, 0), marks=pytest.mark.slow),
    ],
)
def test_models_whose_convolutions_compute_the_connections_are_those_of_the_grouped_backend(
    name: str, student: Callable[[], nn.Module], connected: tuple[int, int]
) -> None:
    """The logits and every gradient, the student's and the connections' among them; only bare ones are computed so."""
    found = []
    for backend in ("triton", "grouped"):
        torch.manual_seed(0)
        method = MethodConfig.model_validate({**VARIANTS[name], "kernels": 3, "backend": backend})
        example = torch.randn(3, 3, 12, 12)
        model = build_training_model(method, student(), example=example).double()
        model(example.double())  # each shape is checked once, by launches too
        with _Operators() as operators:
            outputs = model(example.double())
        total = build_objective(method)(outputs, torch.tensor([0, 3, 1])).total
        gradients = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
        found.append([*outputs.heads().values(), *(gradient for gradient in gradients if gradient is not None)])
        fused = operators.connected, operators.connected_later
        assert fused == (connected if backend == "triton" else (0, 0))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts convolutions that are given a connection, to add it or to keep it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.connected = self.connected_later = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.ecd_deploy.convolve_samples.default:
            self.connected += bool(args[3])
            self.connected_later += bool(args[4])
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("_standing_in")
def test_a_feature_of_another_size_is_not_read() -> None:
    layer = make_layer(QUICK[0])
    images = torch.randn(3, 6, 9, 8, dtype=torch.float64)
    feature, weight = torch.randn(3, 10, 4, 4, dtype=torch.float64), torch.randn(10, 10, 1, 1, dtype=torch.float64)
    offer = Offer(student=feature, weight=weight, is_later=False)
    layer.offered = (offer,)
    found = layer(images)
    assert not offer.is_taken
    assert torch.equal(found, layer(images))


@pytest.mark.usefixtures("_standing_in")
def test_a_router_that_is_watched_is_computed_by_its_modules(caplog: pytest.LogCaptureFixture) -> None:
    layer = make_layer(QUICK[0])
    seen: list[Tensor] = []
    layer.expand.register_forward_hook(lambda _module, _inputs, scores: seen.append(scores))
    layer(torch.randn(3, 6, 9, 8, dtype=torch.float64))
    assert len(seen) == 1
    assert "the router has hooks" in caplog.text
