"""Looks into a trained run: embeddings by t-SNE (paper, figure 2), and Grad-CAM++ (figure 4).

Both show a few images chosen by seed, and prove nothing.
"""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecd_deploy.data import DataSplits, ImageTensors, normalise
from ecd_deploy.distill.student.feature_maps import feature_in, with_feature
from ecd_deploy.errors import UsageError
from ecd_deploy.pipelines.explain.figures import Panel, Row, draw_embeddings, draw_heat_maps
from ecd_deploy.pipelines.explain.networks import Seen, networks_of, shared_data
from ecd_deploy.pipelines.record.run_directory import open_run

FOLDER = "explain"
EMBEDDINGS_NAME = f"{FOLDER}/embeddings.png"
HEAT_MAPS_NAME = f"{FOLDER}/grad_cam.png"
PAGE_NAME = f"{FOLDER}/explain.html"

_CLASSES_DRAWN = 10
_PERPLEXITY = 30.0
_LEAST_POINTS = 6
_BATCH = 256


def explain(root: Path, against: Sequence[Path] = (), *, samples: int, images: int, seed: int) -> tuple[Path, ...]:
    """Write `explain/embeddings.png`, `explain/grad_cam.png` and a page with both into a run directory.

    Args:
        root: a trained run.
        against: other trained runs of the same images; their students are drawn first.
        samples: test images whose embeddings are drawn, of the first ten classes.
        images: test images whose heat maps are drawn; those that a student of `against` gets wrong and this one
            right come first.
        seed: of the choice of images, and of t-SNE.

    Raises:
        UsageError: the package grad-cam is not installed.
        RunDirectoryError: a run is not trained, or is of other images.
    """
    with ExitStack() as held:
        directory = held.enter_context(open_run(root))
        others = tuple(held.enter_context(open_run(other)) for other in against)
        data = shared_data(directory, others)
        before = [seen for other in others for seen in networks_of(other, with_teacher=False)]
        networks = (*before, *networks_of(directory, with_teacher=True))
        order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(seed))
        embeddings = _embeddings(networks, data, order, samples, seed)
        heat_maps = _heat_maps(networks, len(before), data, order[:samples], images)
        page = _page(directory.recipe.name, embeddings, heat_maps)
        for name, content in ((EMBEDDINGS_NAME, embeddings), (HEAT_MAPS_NAME, heat_maps), (PAGE_NAME, page)):
            directory.write(name, content)
    return tuple(root / name for name in (EMBEDDINGS_NAME, HEAT_MAPS_NAME, PAGE_NAME))


def project(embeddings: Tensor, seed: int) -> NDArray[np.float32]:
    """Lay embeddings (N, features) out in two dimensions by t-SNE, (N, 2); the same for the same seed."""
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(embeddings) - 1) / 3)
    layout = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
    points: NDArray[np.float32] = layout.fit_transform(embeddings.cpu().numpy())
    return points


def heat_maps(seen: Seen, images: Tensor, labels: Tensor) -> NDArray[np.float32]:
    """Grad-CAM++ of the last stage's last block for the true classes, (N, H, W) of 0..1.

    Chattopadhyay et al. (2018), <https://arxiv.org/abs/1710.11063>.

    Raises:
        UsageError: the package grad-cam is not installed.
    """
    try:
        from pytorch_grad_cam import GradCAMPlusPlus
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError as error:
        raise UsageError(
            f"explain needs grad-cam, which cannot be imported ({error}); install it with "
            "pip install 'ecd-deploy[explain]'"
        ) from error
    # a block may return its feature among other things; this module returns it alone
    feature = nn.Identity()
    handle = seen.inside.get_submodule(seen.reader.last_block).register_forward_hook(_through(feature))
    try:
        with torch.enable_grad(), GradCAMPlusPlus(seen.network, [feature]) as method:
            found: NDArray[np.float32] = method(images, [ClassifierOutputTarget(label) for label in labels.tolist()])
    finally:
        handle.remove()
    seen.network.zero_grad()
    return found


def _through(feature: nn.Module) -> Callable[[nn.Module, Any, object], object]:
    """A hook that passes a block's feature map through a module, whatever else the block returns."""

    def passed(_module: nn.Module, _arguments: Any, output: object) -> object:
        found = feature_in(output)
        return output if found is None else with_feature(output, feature(found))

    return passed


def _embeddings(networks: Sequence[Seen], data: DataSplits, order: Tensor, samples: int, seed: int) -> bytes:
    labels = torch.from_numpy(data.test.labels)
    chosen = order[labels[order] < _CLASSES_DRAWN][:samples]
    if len(chosen) < _LEAST_POINTS:
        raise UsageError(f"{len(chosen)} test images are too few for t-SNE; at least {_LEAST_POINTS} are needed")
    panels = [Panel(seen.title, project(_seen_by(seen, data, chosen)[0], seed)) for seen in networks]
    return draw_embeddings(panels, labels[chosen].numpy(), data.classes[:_CLASSES_DRAWN])


def _heat_maps(networks: Sequence[Seen], own: int, data: DataSplits, order: Tensor, count: int) -> bytes:
    """`own` is the place of the run's student among the networks."""
    test = ImageTensors.of(data.test)
    right = [_seen_by(seen, data, order)[1] == test.labels[order] for seen in networks[: own + 1]]
    gained = right[own] & ~torch.stack(right).all(dim=0)
    chosen = order[torch.cat([gained.nonzero().flatten(), (~gained).nonzero().flatten()])][:count]
    labels = test.labels[chosen]
    predictions = [_seen_by(seen, data, chosen)[1].tolist() for seen in networks]
    heats = [heat_maps(seen, normalise(test.images[chosen], seen.normalisation), labels) for seen in networks]
    rows = [
        Row(
            _pixels(test.images[index]),
            data.classes[int(labels[row])],
            tuple(heat[row] for heat in heats),
            tuple(data.classes[predicted[row]] for predicted in predictions),
        )
        for row, index in enumerate(chosen.tolist())
    ]
    return draw_heat_maps(rows, [seen.title for seen in networks])


def _seen_by(seen: Seen, data: DataSplits, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings (N, features) and predicted classes (N,) of these test images."""
    images = ImageTensors.of(data.test).images
    parts = [seen.embeddings(normalise(images[part], seen.normalisation)) for part in torch.split(chosen, _BATCH)]
    embeddings, predictions = zip(*parts, strict=True)
    return torch.cat(embeddings), torch.cat(predictions)


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    shown: NDArray[np.uint8] = image.expand(3, -1, -1).permute(1, 2, 0).numpy()
    return shown


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<style>
body {{ font-family: sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em }}
img {{ max-width: 100% }}
</style>
<title>{name}, explained</title>
<h1>{name}</h1>
<h2>Embeddings</h2>
<p>What the classifier gets for test images of the first ten classes, laid out by t-SNE; distances between groups mean
nothing in it.</p>
<img alt="t-SNE of the embeddings, one panel a network" src="data:image/png;base64,{embeddings}">
<h2>Grad-CAM++</h2>
<p>Where the last stage's features speak for the true class; below each picture the predicted class, red if it is wrong.
A few images, chosen by seed, are no evidence.</p>
<img alt="Heat maps over test images, one column a network" src="data:image/png;base64,{heat_maps}">
</html>
"""


def _page(name: str, embeddings: bytes, heat_maps: bytes) -> bytes:
    pictures = {"embeddings": b64encode(embeddings).decode(), "heat_maps": b64encode(heat_maps).decode()}
    return _PAGE.format(name=html.escape(name), **pictures).encode()
