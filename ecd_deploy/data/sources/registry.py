"""Which sources of images there are: those of this package, and those that other packages announce."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

from ecd_deploy.data.imagefolder.cache import default_cache_folder
from ecd_deploy.data.imagefolder.listing import Listings, list_root
from ecd_deploy.data.resize import Framing
from ecd_deploy.data.sources.contract import Source
from ecd_deploy.data.sources.digits import open_digits
from ecd_deploy.data.sources.files import FileSource
from ecd_deploy.data.sources.hugging_face import read_folder, read_hub
from ecd_deploy.data.sources.parquet import read_parquet
from ecd_deploy.data.sources.tables import list_table, read_csv
from ecd_deploy.data.sources.torchvision_sets import open_cifar, open_torchvision
from ecd_deploy.errors import DataError, EcdDeployError, UsageError, first_line, reraise_machine_fault
from ecd_deploy.recipe.data import SOURCES_GROUP, DataConfig


def open_source(config: DataConfig) -> Source:
    """Open the source that the recipe names; no image file is decoded.

    Raises:
        DataError: folders, tables or labels that cannot be used, or a download that failed.
        UsageError: an extra is not installed, or a plug-in fails.
    """
    framing = None if config.image_size is None else Framing.of(config.image_size, config.resize)
    kind, _, name = config.source.partition(":")
    match kind:
        case "digits":
            return open_digits(framing)
        case "cifar10" | "cifar100":
            return open_cifar(kind, config.path, framing)
        case "torchvision":
            return open_torchvision(name, config.path, framing)
        case "imagefolder":
            return _files(config, list_root(Path(config.path or "")), framing)
        case "csv":
            return _files(config, list_table(read_csv(Path(config.path or ""))), framing)
        case "parquet":
            return _files(config, list_table(read_parquet(Path(config.path or ""), _cache(config))), framing)
        case "datasets":
            return _files(config, list_table(read_folder(Path(config.path or ""), _cache(config))), framing)
        case "hub":
            return _files(config, list_table(read_hub(name, config.path, _cache(config))), framing)
        case _:
            return _plugged(config)


def _files(config: DataConfig, listings: Listings, framing: Framing | None) -> FileSource:
    return FileSource(listings, framing, cache_folder=_cache(config), skip_bad=config.skip_bad)


def _cache(config: DataConfig) -> Path:
    return Path(config.cache_dir) if config.cache_dir else default_cache_folder()


def _plugged(config: DataConfig) -> Source:
    found = [entry for entry in entry_points(group=SOURCES_GROUP) if entry.name == config.source]
    if len(found) != 1:
        packages = ", ".join(entry.dist.name for entry in found if entry.dist) or "no package"
        raise UsageError(f"data.source '{config.source}' is announced by {packages}; one must")
    plug_in = f"the plug-in of source '{config.source}', {found[0].value}"
    try:
        source: Source = found[0].load()(config)
    except EcdDeployError:
        raise
    except Exception as error:
        reraise_machine_fault(error)
        raise DataError(f"{plug_in}, fails: {first_line(error)}") from error
    missing = [name for name in (*Source.__annotations__, "read") if not hasattr(source, name)]
    if missing:
        raise UsageError(f"{plug_in}, lacks {', '.join(missing)}")
    return source
