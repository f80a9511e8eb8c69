"""A machine-learning bill of materials, CycloneDX 1.6 JSON: the student, its data, its files and its libraries.

<https://cyclonedx.org/docs/1.6/json/>. The same run gives the same document: the serial number is made from the
student's digest, and there is no date.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Literal

from pydantic import Field
from pydantic.alias_generators import to_camel

from ecd_deploy.pipelines.record.artefacts import ArtefactList
from ecd_deploy.pipelines.record.names import BOM_NAME
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.pipelines.record.start import Start, read_start
from ecd_deploy.pipelines.record.validation import Validation
from ecd_deploy.pipelines.report.results import RunResults
from ecd_deploy.records import Record

_NAMESPACE = uuid.UUID("6d0f4a52-5f0c-5b55-9a0e-1d0e7c0f8a11")


class _Part(Record, alias_generator=to_camel, populate_by_name=True):
    """A part of the document, whose keys are in camel case."""


class _Hash(_Part):
    alg: Literal["SHA-256"] = "SHA-256"
    content: str


class _Property(_Part):
    name: str
    value: str


class _Metric(_Part):
    type: str
    value: str
    slice: str


class _Analysis(_Part):
    performance_metrics: tuple[_Metric, ...]


class _Dataset(_Part):
    ref: str


class _Approach(_Part):
    type: Literal["supervised"] = "supervised"


class _Parameters(_Part):
    approach: _Approach = _Approach()
    task: str = "image classification"
    architecture_family: str = "convolutional neural network"
    model_architecture: str
    datasets: tuple[_Dataset, ...]


class _ModelCard(_Part):
    model_parameters: _Parameters
    quantitative_analysis: _Analysis


class _Pedigree(_Part):
    ancestors: tuple[_Component, ...]


class _Component(_Part):
    type: Literal["machine-learning-model", "data", "file", "library", "application"]
    bom_ref: Annotated[str, Field(alias="bom-ref")]
    name: str
    version: str | None = None
    purl: str | None = None
    hashes: tuple[_Hash, ...] = ()
    properties: tuple[_Property, ...] = ()
    model_card: _ModelCard | None = None
    pedigree: _Pedigree | None = None


class _Metadata(_Part):
    component: _Component


class _Dependency(_Part):
    ref: str
    depends_on: tuple[str, ...]


class BillOfMaterials(_Part):
    """The document."""

    bom_format: Literal["CycloneDX"] = "CycloneDX"
    spec_version: Literal["1.6"] = "1.6"
    serial_number: str
    version: int = 1
    metadata: _Metadata
    components: tuple[_Component, ...]
    dependencies: tuple[_Dependency, ...]

    def to_json(self) -> bytes:
        """As the schema names the fields, without those that are empty."""
        text = self.model_dump_json(by_alias=True, exclude_none=True, exclude_defaults=False, indent=2)
        return (text + "\n").encode()


def write_bom(directory: RunDirectory, results: RunResults) -> BillOfMaterials:
    """Write `bom.cdx.json` from the manifest and the results."""
    result = _bill(directory, results.artefacts, results.validation)
    directory.write(BOM_NAME, result.to_json(), {"student": results.artefacts.student_digest})
    return result


def _bill(directory: RunDirectory, exported: ArtefactList, validation: Validation) -> BillOfMaterials:
    recipe, manifest = directory.recipe, directory.manifest
    data = _Component(
        type="data",
        bom_ref="data",
        name=recipe.data.source,
        hashes=(_Hash(content=manifest.data_digest),) if manifest.data_digest else (),
    )
    files = tuple(
        _Component(
            type="file",
            bom_ref=artefact.file,
            name=artefact.file,
            hashes=(_Hash(content=artefact.sha256),),
            properties=(
                _Property(name="ecd-deploy:format", value=artefact.format),
                _Property(name="ecd-deploy:bytes", value=str(artefact.bytes)),
                _Property(name="ecd-deploy:student-sha256", value=exported.student_digest),
            ),
        )
        for artefact in exported.artefacts
    )
    libraries = tuple(
        _Component(
            type="application" if name == "ecd-deploy" else "library",
            bom_ref=f"pkg:pypi/{name}@{version}",
            name=name,
            version=version,
            purl=f"pkg:pypi/{name}@{version}",
        )
        for name, version in sorted(manifest.versions.items())
    )
    student = _Component(
        type="machine-learning-model",
        bom_ref="student",
        name=recipe.name,
        hashes=(_Hash(content=exported.student_digest),),
        properties=(_Property(name="ecd-deploy:recipe-sha256", value=manifest.recipe_digest),),
        model_card=_ModelCard(
            model_parameters=_Parameters(model_architecture=recipe.student.name, datasets=(_Dataset(ref="data"),)),
            quantitative_analysis=_Analysis(performance_metrics=_metrics(validation)),
        ),
        pedigree=_pedigree(read_start(directory)),
    )
    return BillOfMaterials(
        serial_number=f"urn:uuid:{uuid.uuid5(_NAMESPACE, exported.student_digest)}",
        metadata=_Metadata(component=student),
        components=(data, *files, *libraries),
        dependencies=(
            _Dependency(ref="student", depends_on=("data", *(library.bom_ref for library in libraries))),
            *(_Dependency(ref=file.bom_ref, depends_on=("student",)) for file in files),
        ),
    )


def _pedigree(start: Start | None) -> _Pedigree | None:
    """The weights that the student started from, the digest of whose tensors is known."""
    if start is None:
        return None
    weights = _Component(
        type="machine-learning-model",
        bom_ref="start",
        name=start.source,
        hashes=(_Hash(content=start.digest),),
    )
    return _Pedigree(ancestors=(weights,))


def _metrics(validation: Validation) -> tuple[_Metric, ...]:
    return tuple(
        _Metric(type="top-1", value=f"{entry.top1.candidate.accuracy:.6f}", slice=f"test set, {entry.file}")
        for entry in validation.artefacts
        if entry.top1 is not None
    )
