"""Is this machine ready? What is installed, which device will be used, what the caches hold, what can be fetched.

`ulmfit-fastai doctor` prints it. Nothing is changed, and whatever is broken is a line, never an exception.
"""

from __future__ import annotations

import configparser
import os
import platform
import shutil
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from urllib.error import HTTPError

from . import __version__

OK, NOTE, PROBLEM = "ok", "note", "PROBLEM"
TIMEOUT = 4.0  # seconds for a host to answer
FREE_DISK_GB = 3.0  # IMDb unpacked, its token store and a full-size run folder with its state take about 2.5 GB
FREE_MEMORY_GB = 4.0  # a full-size classifier step needs about 6 GB on the CPU, the quick preset less


@dataclass(frozen=True)
class Line:
    """One finding: its status, what was found, and what to do about it."""

    status: str
    text: str
    advice: str = ""


@dataclass
class Diagnosis:
    """All findings by section; `healthy` unless one of them stands in the way of a run."""

    sections: dict[str, list[Line]] = field(default_factory=dict)

    @property
    def problems(self) -> list[Line]:
        return [line for lines in self.sections.values() for line in lines if line.status == PROBLEM]

    @property
    def healthy(self) -> bool:
        return not self.problems

    @property
    def text(self) -> str:
        """The whole of it, ready to print."""
        shown = [f"ulmfit-fastai {__version__}, Python {platform.python_version()}, {platform.platform()}"]
        for title, lines in self.sections.items():
            shown += ["", title]
            for line in lines:
                shown.append(f"  {line.status:<7} {line.text}")
                shown += [f"          {part}" for part in line.advice.splitlines()]
        count = len(self.problems)
        verdict = "ready" if not count else f"{count} problem{'s' * (count > 1)}: see the lines marked {PROBLEM}"
        return "\n".join([*shown, "", verdict])


@dataclass(frozen=True)
class Asset:
    """Something to be downloaded once: where it comes from and where fastai looks for it."""

    name: str
    url: str
    folder: Path
    archive: Path | None  # where the file may be put by hand, None where only the unpacked folder counts
    needed: bool  # by `ulmfit-fastai imdb`


def diagnose(*, network: bool = True) -> Diagnosis:
    """Look at everything. `network=False` leaves the hosts alone."""
    diagnosis = Diagnosis()
    diagnosis.sections["Installed"] = list(_guarded(_versions))
    diagnosis.sections["Device"] = list(_guarded(_device))
    diagnosis.sections["Memory and disk"] = list(_guarded(_room))
    hosts = _guarded_hosts() if network else None
    diagnosis.sections["Data and weights"] = list(_guarded(lambda: _assets(hosts)))
    diagnosis.sections["Caches"] = list(_guarded(_caches))
    diagnosis.sections["Network"] = [Line(NOTE, "not tried")] if hosts is None else [
        Line(OK if answer is None else NOTE, f"{name}: {answer or 'answers'}") for name, answer in hosts.items()]
    return diagnosis


def _guarded(look: Callable[[], Iterable[Line]]) -> Iterator[Line]:
    """The lines of one section; if looking itself fails, that is a line too, for then the reader needs the others."""
    try:
        yield from look()
    except Exception as error:  # a broken installation fails in ways that nobody can list
        yield Line(PROBLEM, f"could not be found out: {type(error).__name__}: {error}")


def _versions() -> Iterator[Line]:
    from packaging.requirements import Requirement

    for requirement in map(Requirement, required()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue  # belongs to an extra
        remedy = f'pip install "{requirement.name}{requirement.specifier}"'
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Line(PROBLEM, f"{requirement.name}: not installed, {requirement.specifier} is needed", remedy)
            continue
        if requirement.specifier.contains(found, prereleases=True):
            yield Line(OK, f"{requirement.name} {found}  (meant for {requirement.specifier})")
        else:
            yield Line(PROBLEM, f"{requirement.name} {found}: {requirement.specifier} is needed", remedy)


def required() -> list[str]:
    """What the package depends on: as installed, or, run from a clone without being installed, from its setup.cfg."""
    try:
        return requires("ulmfit-fastai") or []
    except PackageNotFoundError:
        config = configparser.ConfigParser()
        config.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
        return config["options"]["install_requires"].split()


def _device() -> Iterator[Line]:
    import torch
    from fastai.torch_core import default_device

    from .precision import resolve

    device = default_device()
    precision = resolve("auto", device)
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        yield Line(OK, f"{torch.cuda.get_device_name(device)}, {memory:.0f} GB, {torch.cuda.device_count()} of them; "
                       f"precision {precision}")
    else:
        yield Line(OK, f"{device.type}: {platform.processor() or platform.machine()}; precision {precision}")
    yield Line(OK, f"{torch.get_num_threads()} threads on {os.cpu_count()} cores")
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        yield Line(NOTE, f"there is an NVIDIA driver, but torch {torch.__version__} does not use it",
                   "install torch for CUDA: https://pytorch.org/get-started/locally/")


def _room() -> Iterator[Line]:
    free = available_memory()
    if free is None:
        yield Line(NOTE, "free memory: unknown on this system")
    else:
        yield Line(OK if free >= FREE_MEMORY_GB else NOTE, f"{free:.1f} GB of memory free",
                   "" if free >= FREE_MEMORY_GB else "enough for --preset quick and tiny; the full size needs more")
    places = {"runs (this folder)": Path.cwd(), "fastai's cache": fastai_home()}
    for name, place in places.items():
        disk = shutil.disk_usage(_nearest(place)).free / 2**30
        yield Line(OK if disk >= FREE_DISK_GB else PROBLEM, f"{disk:.1f} GB of disk free for {name}: {place}",
                   "" if disk >= FREE_DISK_GB else f"{FREE_DISK_GB:.0f} GB are needed; FASTAI_HOME moves the cache")
        if not os.access(_nearest(place), os.W_OK):
            yield Line(PROBLEM, f"no permission to write to {_nearest(place)}")


def _assets(hosts: dict[str, str | None] | None) -> Iterator[Line]:
    from .weights import BUNDLED

    bundled = sorted(path.stem for path in BUNDLED.glob("*.safetensors"))
    yield Line(OK if bundled else NOTE, f"weights that come with the package: {', '.join(bundled) or 'none'}")
    for asset in known_assets():
        if asset.folder.is_dir() and any(asset.folder.iterdir()):
            yield Line(OK, f"{asset.name}: in {asset.folder}")
            continue
        if asset.archive is not None and asset.archive.is_file():
            yield Line(OK, f"{asset.name}: in {asset.archive}")
            continue
        by_hand = f"unpacked to {asset.folder}" + (f", or as it is to {asset.archive}" if asset.archive else "")
        where = f"by hand: {asset.url}\n{by_hand}"
        answer = None if hosts is None else hosts.get(_host(asset.url), "not tried")
        if hosts is None:
            yield Line(NOTE, f"{asset.name}: not in the cache, would be downloaded when first used", where)
        elif answer is None:
            yield Line(NOTE, f"{asset.name}: not in the cache, will be downloaded when first used")
        else:
            status = PROBLEM if asset.needed else NOTE
            yield Line(status, f"{asset.name}: not in the cache, and its host cannot be reached", where)


def known_assets() -> list[Asset]:
    """The data sets and weights that the commands fetch, from fastai's own list of addresses."""
    from fastai.data.external import URLs

    data, archive, models = (fastai_folder(key) for key in ("data", "archive", "model"))
    sets = {"IMDb": URLs.IMDB, "AG News": URLs.AG_NEWS, "DBpedia": URLs.DBPEDIA, "Yelp-bi": URLs.YELP_REVIEWS_POLARITY,
            "Yelp-full": URLs.YELP_REVIEWS, "WikiText-103": URLs.WIKITEXT}
    weights = {"wt103 forward": URLs.WT103_FWD, "wt103 backward": URLs.WT103_BWD}
    return [Asset(f"weights {name}", url, models / Path(url).stem, None, True) for name, url in weights.items()] + [
        Asset(name, url, data / Path(url).stem, archive / Path(url).name, name == "IMDb") for name, url in sets.items()]


def _caches() -> Iterator[Line]:
    folders = {"fastai's cache": fastai_home(), "token stores": token_stores()}
    for name, folder in folders.items():
        if folder.is_dir():
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
            entries = sum(1 for path in folder.iterdir() if path.is_dir())
            yield Line(OK, f"{name}: {folder}, {entries} folders, {size:,.0f} MB")
        else:
            yield Line(OK, f"{name}: {folder}, nothing there yet")


def _guarded_hosts() -> dict[str, str | None]:
    """Host -> None where it answers, else why not. One small request to each, all at once."""
    try:
        urls = {_host(asset.url): asset.url for asset in known_assets()}
    except Exception as error:  # fastai is missing or broken: the section above says so
        return {"hosts": f"not known without fastai ({type(error).__name__})"}
    with ThreadPoolExecutor(len(urls)) as pool:
        return dict(zip(urls, pool.map(unreachable, urls.values())))


def unreachable(url: str) -> str | None:
    """Why `url` cannot be fetched, in a few words; None if it can."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT):
            return None
    except HTTPError as error:
        return f"answers {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return f"no answer ({getattr(error, 'reason', error)})"


def fastai_home() -> Path:
    """fastai's cache folder: FASTAI_HOME or ~/.fastai."""
    return Path(os.environ.get("FASTAI_HOME", "~/.fastai")).expanduser()


def fastai_folder(key: str) -> Path:
    """Where fastai keeps `data`, `archive` or `model`; read here because asking fastai makes the folders."""
    config = configparser.ConfigParser()
    config.read(fastai_home() / "config.ini")
    name = config["DEFAULT"].get(key, {"model": "models"}.get(key, key))
    return fastai_home() / Path(name).expanduser()


def token_stores() -> Path:
    from .tokens import cache_root

    return cache_root()


def available_memory() -> float | None:
    """Memory that a new process can have, in GB; None where the system doesn't say."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) / 2**20)
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()  # a container's own limit
        if limit.isdigit():
            found.append((int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text())) / 2**30)
    except (OSError, ValueError):
        pass  # not Linux, or no limit set
    if not found and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
    return min(found) if found else None


def _host(url: str) -> str:
    return url.split("/")[2]


def _nearest(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())
