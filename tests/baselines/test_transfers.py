"""Each loss from a frozen teacher against its formula, written out by loops and sums in float64."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import Tensor, nn

from ecd_deploy.baselines.contrast import Contrast
from ecd_deploy.baselines.knowledge import Knowledge
from ecd_deploy.baselines.library_transfers import (
    CorrelationCongruence,
    FactorTransfer,
    FlowOfSolution,
    VariationalInformation,
    attention_transfer,
    library,
    probabilistic_transfer,
    relational,
)
from ecd_deploy.baselines.transfers import (
    Hint,
    NeuronSelectivity,
    SimilarityPreservation,
    SoftLabels,
    Transfer,
    require_aligned,
)
from ecd_deploy.errors import StudentError, UsageError

IMAGES = 4
INDICES = torch.tensor([3, 0, 5, 7])


def shown(seed: int, *, widths: tuple[int, ...] = (2, 3), features: int = 5) -> Knowledge:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(IMAGES, *shape, generator=generator, dtype=torch.float64).requires_grad_()

    sides = (4, 2)
    return Knowledge(
        inputs=[draw(2, 4, 4), draw(widths[0], 4, 4)],
        stages=[draw(width, side, side) for width, side in zip(widths, sides, strict=True)],
        embedding=draw(features),
        logits=draw(6),
    )


def value_of(transfer: Transfer, student: Knowledge, teacher: Knowledge) -> float:
    found: float = transfer.double()(student, teacher.detached(), INDICES).item()
    return found


def unit(vector: Tensor) -> Tensor:
    return vector / vector.square().sum().sqrt()


STUDENT, TEACHER = shown(1), shown(2)


@pytest.mark.needs("torchdistill")
def test_kd_is_the_library_s_but_for_its_missing_square_of_the_temperature() -> None:
    other = library().KDLoss("logits", "output", "logits", "output", temperature=4.0, alpha=0)
    expected = 16 * other({"logits": {"output": STUDENT.logits}}, {"logits": {"output": TEACHER.logits}})
    assert value_of(SoftLabels(4.0), STUDENT, TEACHER) == pytest.approx(expected.item())


def test_fitnet_compares_the_second_stage_and_widens_the_student_where_it_must() -> None:
    expected = (STUDENT.stages[1] - TEACHER.stages[1]).square().sum().item() / (IMAGES * 3 * 4)
    assert value_of(Hint(STUDENT, TEACHER), STUDENT, TEACHER) == pytest.approx(expected)
    wide = shown(2, widths=(2, 7))
    hint = Hint(STUDENT, wide).double()
    assert isinstance(hint.regressor, nn.Conv2d)
    assert hint.regressor.bias is not None
    mapped = torch.einsum("oc,nchw->nohw", hint.regressor.weight[:, :, 0, 0], STUDENT.stages[1])
    mapped = mapped + hint.regressor.bias.view(1, -1, 1, 1)
    expected = (mapped - wide.stages[1]).square().mean().item()
    assert value_of(hint, STUDENT, wide) == pytest.approx(expected)


@pytest.mark.needs("torchdistill")
def test_at() -> None:
    expected = 0.0
    for own, other in zip(STUDENT.stages, TEACHER.stages, strict=True):
        differences = [
            unit(own[image].square().sum(0).flatten()) - unit(other[image].square().sum(0).flatten())
            for image in range(IMAGES)
        ]
        expected += torch.stack(differences).square().mean().item()
    assert value_of(attention_transfer(STUDENT, TEACHER), STUDENT, TEACHER) == pytest.approx(expected)


@pytest.mark.needs("torchdistill")
def test_fsp_is_a_mean_of_squares() -> None:
    def matrices(one: Knowledge, stage: int) -> Tensor:
        first, second = one.inputs[stage], one.stages[stage]
        if stage == 1:  # the larger one is reduced to the smaller by its largest values
            first = first.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
        pixels = second.shape[2] * second.shape[3]
        return torch.einsum("nahw,nbhw->nab", first, second) / pixels

    expected = 0.0
    for stage in (0, 1):
        difference = matrices(STUDENT, stage) - matrices(TEACHER, stage)
        expected += sum(value**2 for value in difference.flatten().tolist()) / difference.numel()
    assert value_of(FlowOfSolution(STUDENT, TEACHER), STUDENT, TEACHER) == pytest.approx(expected)


def test_sp_scales_rows_to_euclidean_length_one() -> None:
    def similarities(one: Knowledge) -> Tensor:
        rows = [feature.flatten() for feature in one.stages[-1]]
        return torch.stack([unit(torch.stack([first @ second for second in rows])) for first in rows])

    expected = (similarities(TEACHER) - similarities(STUDENT)).square().sum().item() / IMAGES**2
    assert value_of(SimilarityPreservation(), STUDENT, TEACHER) == pytest.approx(expected)


@pytest.mark.needs("torchdistill")
def test_vid_is_a_gaussian_s_negative_log_likelihood() -> None:
    transfer = VariationalInformation(STUDENT, TEACHER).double()
    with torch.no_grad():
        transfer.variances[1].add_(torch.tensor([-3.0, 0.0, 1.0]))
    expected = 0.0
    for stage in (0, 1):
        mean = transfer.regressors[stage](STUDENT.stages[stage])
        variance = (transfer.variances[stage].exp() + 1).log() + 1e-5
        spread = variance.view(1, -1, 1, 1)
        densities = (-((TEACHER.stages[stage] - mean) ** 2) / (2 * spread)).exp() / (2 * math.pi * spread).sqrt()
        expected -= densities.log().mean().item() + 0.5 * math.log(2 * math.pi)
    assert value_of(transfer, STUDENT, TEACHER) == pytest.approx(expected)
    first = transfer.regressors[0]
    assert not any(isinstance(part, nn.BatchNorm2d) for part in transfer.modules())
    assert [part.out_channels for part in first.modules() if isinstance(part, nn.Conv2d)] == [2, 2, 2]
    assert VariationalInformation(STUDENT, TEACHER).variances[0].exp().log1p().tolist() == pytest.approx(
        [5.0] * 2, abs=1e-4
    )


@pytest.mark.needs("torchdistill")
def test_pkt() -> None:
    def probabilities(one: Knowledge) -> Tensor:
        rows = [unit(row) for row in one.embedding]
        cosines = torch.stack([torch.stack([(first @ second + 1) / 2 for second in rows]) for first in rows])
        return cosines / cosines.sum(1, keepdim=True)

    own, other = probabilities(STUDENT), probabilities(TEACHER)
    expected = (other * (other / own).log()).mean().item()
    assert value_of(probabilistic_transfer(), STUDENT, TEACHER) == pytest.approx(expected, rel=1e-4)


@pytest.mark.needs("torchdistill")
def test_ft_and_its_paraphraser_learn_apart() -> None:
    student, teacher = shown(1), shown(2)
    transfer = FactorTransfer(student, teacher, factor=200.0).double()
    factors, translated = transfer.paraphraser(teacher.stages[-1]), transfer.translator(student.stages[-1])
    pairs = zip(factors.flatten(1), translated.flatten(1), strict=True)
    distance = torch.stack([(unit(other) - unit(own)).abs() for other, own in pairs]).mean()
    reconstruction = (transfer.reconstruction(factors) - teacher.stages[-1]).square().mean()
    value = transfer(student, teacher.detached(), INDICES)
    assert value.item() == pytest.approx((distance + reconstruction / 200).item())
    found = torch.autograd.grad(200 * value, list(transfer.paraphraser.parameters()))
    alone = torch.autograd.grad(reconstruction, list(transfer.paraphraser.parameters()))
    for gradient, expected in zip(found, alone, strict=True):
        torch.testing.assert_close(gradient, expected)


def test_nst_is_a_discrepancy_of_channels() -> None:
    expected = 0.0
    for own, other in zip(STUDENT.stages, TEACHER.stages, strict=True):
        for image in range(IMAGES):
            first = [unit(channel.flatten()) for channel in own[image]]
            second = [unit(channel.flatten()) for channel in other[image]]

            def kernel(some: list[Tensor], others: list[Tensor]) -> float:
                values = [(x @ y).item() ** 2 for x in some for y in others]
                return sum(values) / len(values)

            discrepancy = kernel(second, second) + kernel(first, first) - 2 * kernel(first, second)
            expected += discrepancy / IMAGES
    assert value_of(NeuronSelectivity(STUDENT, TEACHER), STUDENT, TEACHER) == pytest.approx(expected)


@pytest.mark.needs("torchdistill")
def test_rkd() -> None:
    def huber(own: list[float], other: list[float]) -> float:
        gaps = [abs(x - y) for x, y in zip(own, other, strict=True)]
        return sum(gap**2 / 2 if gap < 1 else gap - 0.5 for gap in gaps) / len(gaps)

    def distances(rows: Tensor) -> list[float]:
        all_pairs = [math.dist(first.tolist(), second.tolist()) for first in rows for second in rows]
        mean = sum(all_pairs) / (IMAGES**2 - IMAGES)
        return [value / mean for value in all_pairs]

    def angles(rows: Tensor) -> list[float]:
        def side(end: Tensor, vertex: Tensor) -> Tensor:
            return torch.zeros_like(end) if torch.equal(end, vertex) else unit(end - vertex)

        return [(side(a, vertex) @ side(b, vertex)).item() for vertex in rows for a in rows for b in rows]

    own, other = STUDENT.embedding.detach(), TEACHER.embedding.detach()
    expected = 3 * huber(distances(own), distances(other)) + 7 * huber(angles(own), angles(other))
    assert value_of(relational(3.0, 7.0), STUDENT, TEACHER) == pytest.approx(expected, rel=1e-5)


@pytest.mark.needs("torchdistill")
def test_cc_expands_a_gaussian_kernel() -> None:
    transfer = CorrelationCongruence(STUDENT, TEACHER).double()
    embeddings = (transfer.student_embedding(STUDENT.embedding), transfer.teacher_embedding(TEACHER.embedding))
    matrices = []
    for rows in embeddings:
        assert rows.square().sum(1).tolist() == pytest.approx([1.0] * IMAGES)
        products = [[(first @ second).item() for second in rows] for first in rows]
        kernel = [[math.exp(-0.8) * (1 + 0.8 * x + 0.8**2 * x**2 / 2) for x in row] for row in products]
        matrices.append([value for row in kernel for value in row])
    squares = [(own - other) ** 2 for own, other in zip(*matrices, strict=True)]
    expected = sum(squares) / IMAGES**2
    assert value_of(transfer, STUDENT, TEACHER) == pytest.approx(expected)


LABELS = torch.tensor([0, 0, 1, 1, 1, 2, 0, 2, 2, 1])


@pytest.mark.needs("torchdistill")
def test_crd_tells_each_image_from_others_of_other_classes() -> None:
    torch.manual_seed(0)
    negatives = 3
    transfer = Contrast(STUDENT, TEACHER, LABELS, negatives).double()
    before = {name: transfer.loss.get_buffer(name).clone() for name in ("memory_v1", "memory_v2")}
    own, other = transfer.student_embedding(STUDENT.embedding), transfer.teacher_embedding(TEACHER.embedding)
    torch.manual_seed(1)
    drawn = torch.cat([INDICES.unsqueeze(1), transfer.draw(INDICES)], dim=1)
    torch.manual_seed(1)
    value = transfer(STUDENT, TEACHER.detached(), INDICES)

    expected = 0.0
    noise = negatives / len(LABELS)
    for embedding, memory in ((own, before["memory_v2"]), (other, before["memory_v1"])):
        scores = torch.stack(
            [(memory[row] @ vector / 0.07).exp() for row, vector in zip(drawn, embedding, strict=True)]
        )
        scores = scores / (scores.mean() * len(LABELS))
        likelihood = (scores[:, 0] / (scores[:, 0] + noise)).log().sum()
        likelihood = likelihood + (noise / (scores[:, 1:] + noise)).log().sum()
        expected -= likelihood.item() / IMAGES
    assert value.item() == pytest.approx(expected, rel=1e-4)
    remembered = transfer.loss.get_buffer("memory_v1")[INDICES[0]]
    torch.testing.assert_close(remembered, unit(before["memory_v1"][INDICES[0]] / 2 + own[0] / 2))
    assert not any(buffer.requires_grad for buffer in transfer.buffers())


@pytest.mark.needs("torchdistill")
def test_negatives_of_crd_are_all_others_evenly_and_no_image_of_the_same_class() -> None:
    torch.manual_seed(0)
    transfer = Contrast(STUDENT, TEACHER, LABELS, 6000)
    for index, drawn in zip(INDICES.tolist(), transfer.draw(INDICES), strict=True):
        counts = torch.bincount(drawn, minlength=len(LABELS))
        others = LABELS[index] != LABELS
        assert not counts[~others].any()
        expected = 6000 / int(others.sum())
        assert (counts[others] - expected).abs().max() < 5 * math.sqrt(expected)


def test_networks_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(
        StudentError, match=r"'fsp' needs stages of equal channels .* are 2x4x4, 3x2x2, .* 2x4x4, 7x2x2"
    ):
        FlowOfSolution(STUDENT, shown(2, widths=(2, 7)))
    fewer = Knowledge(STUDENT.inputs[:1], STUDENT.stages[:1], STUDENT.embedding, STUDENT.logits)
    with pytest.raises(StudentError, match="'at' needs stages of equal resolutions"):
        attention_transfer(STUDENT, fewer)
    with pytest.raises(StudentError, match="at least two classes"):
        Contrast(STUDENT, TEACHER, torch.zeros(10, dtype=torch.int64), 3)
    require_aligned("at", STUDENT, shown(2, widths=(8, 9)))


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchdistill.losses", None)
    with pytest.raises(UsageError, match=r"pip install 'ecd-deploy\[baselines\]'"):
        relational(50.0, 25.0)
    assert value_of(SimilarityPreservation(), STUDENT, TEACHER) > 0
