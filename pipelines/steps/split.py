"""Step 2: split the student off, with a proof."""

from __future__ import annotations

from ecd_deploy.data import DataSplits
from ecd_deploy.pipelines.record.names import SPLIT_NAME, TRAINING_NAME, WEIGHTS_NAME
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.pipelines.steps.train import example_images, student_factory, training_model
from ecd_deploy.split import SplitProof, SplitStudent, load_student, split_student, student_bytes
from ecd_deploy.training import load_weights


def split(directory: RunDirectory, data: DataSplits) -> SplitProof:
    """Load the selected checkpoint, prove the student separate, and write it with its proof.

    Raises:
        RunDirectoryError: the run is not trained.
        SplitError: the student is not separate; nothing is written.
        CheckpointError: the checkpoint is missing or was changed.
    """
    directory.require(TRAINING_NAME)
    recipe = directory.recipe
    model = training_model(recipe, data)
    load_weights(directory.root, recipe.train.select, model)
    student = split_student(
        model, example_images(data), factory=student_factory(recipe, data), unused=recipe.student.unused
    )
    directory.write(WEIGHTS_NAME, student_bytes(student))
    directory.write_json(SPLIT_NAME, student.proof)
    return student.proof


def read_proof(directory: RunDirectory) -> SplitProof:
    """Read the proof that `split` wrote.

    Raises:
        RunDirectoryError: nothing was split yet.
        ArtefactError: the file was changed.
    """
    return directory.read_json(SPLIT_NAME, SplitProof)


def open_student(directory: RunDirectory, data: DataSplits, proof: SplitProof) -> SplitStudent:
    """Build the student anew, with the weights that `split` wrote; they are checked against the proof.

    Raises:
        ArtefactError: the weights were changed, or are not those of the proof.
    """
    return load_student(directory.read(WEIGHTS_NAME), student_factory(directory.recipe, data)(), proof)
