"""What a baseline ships, on the test images of another run."""

from __future__ import annotations

from ecd_deploy import models
from ecd_deploy.data import Normalisation
from ecd_deploy.data.digest import digest_of_test
from ecd_deploy.errors import RunDirectoryError
from ecd_deploy.exporters import exporter_for
from ecd_deploy.exporters.onnx.provider import open_artefact
from ecd_deploy.measure.predictors.prediction import predict
from ecd_deploy.pipelines.record.artefacts import Artefact
from ecd_deploy.pipelines.record.predictions import StoredPredictions, scores_of
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.pipelines.steps.data import recorded_data
from ecd_deploy.system import usable_cpus


def predict_anew(baseline: RunDirectory, onnx: Artefact, directory: RunDirectory) -> StoredPredictions:
    """What an artefact of `baseline` says of each test image of the run in `directory`.

    The images are normalised as the baseline's were, and come in batches of the run.

    Raises:
        DataError: the run's images are not those that it was made from.
        RunDirectoryError: the baseline takes images of another shape.
        ArtefactError: its artefact was changed.
    """
    data, content = recorded_data(directory), baseline.read(onnx.file)
    exporter = exporter_for(onnx.format, baseline.recipe.export)
    metadata = exporter.read_metadata(content)
    if metadata.input_shape != data.input_shape:
        raise RunDirectoryError(
            f"{baseline.root} has other test images than this run, and cannot be evaluated on these: its student takes "
            f"{_size(metadata.input_shape)}, they are {_size(data.input_shape)} (channels x height x width)"
        )
    normalisation = Normalisation(metadata.mean, metadata.std)
    batches = normalisation.batches(data.test, directory.recipe.profile.batch_size)
    opened = open_artefact(
        exporter,
        content,
        # torch comes with it, which only formats of other runtimes ask for
        lambda: models.build_student(
            baseline.recipe.student.name, num_classes=len(metadata.classes), in_channels=metadata.input_shape[0]
        ),
        provider=baseline.recipe.profile.provider,
    )
    at_once = len(usable_cpus()) if exporter.runtime == "onnxruntime" else 1
    predictions = predict(opened.predictor, batches, at_once=at_once)
    return scores_of(predictions, data.classes, digest_of_test(data), columns=data.test_columns)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
