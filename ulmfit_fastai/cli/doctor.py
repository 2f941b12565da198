"""Is this machine ready? What is installed, which device will be used, what the caches hold, what can be fetched.

`ulmfit-fastai doctor` prints it. Nothing is changed, and whatever is broken is a line, never an exception.
"""

from __future__ import annotations

import configparser
import os
import platform
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from urllib.error import HTTPError

from .._version import __version__

OK, NOTE = "ok", "note"
PROBLEM = "PROBLEM"  # stands in the way of every run
MISSING = "missing"  # stands in the way of `ulmfit-fastai imdb`; the demo and one's own texts do without
TIMEOUT = 1.5  # seconds for all hosts together to answer: looking up a name may hang far longer without a network
FREE_DISK_GB = 3.0  # for the data unpacked, its token store, and a full-size run folder with the state of its optimiser
FREE_MEMORY_GB = 6.0  # stock fastai's classifier at full size peaked at 5.8 GB on a CPU


@dataclass(frozen=True)
class Line:
    """One finding: its status, what was found, and what to do about it."""

    status: str
    text: str
    advice: str = ""


@dataclass
class Diagnosis:
    """All findings by section; `ready_for` says what nothing stands in the way of."""

    sections: dict[str, list[Line]] = field(default_factory=dict)

    def count(self, status: str) -> int:
        return sum(line.status == status for lines in self.sections.values() for line in lines)

    def ready_for(self, purpose: str) -> bool:
        """Whether 'texts' (the demo and one's own), or 'imdb', can run."""
        return not self.count(PROBLEM) and (purpose == "texts" or not self.count(MISSING))

    @property
    def verdict(self) -> str:
        if self.count(PROBLEM):
            return f"not ready: see the lines marked {PROBLEM}"
        if self.count(MISSING):
            return f"ready for the demo and your own texts; `ulmfit-fastai imdb` needs what is marked {MISSING}"
        if "Data and weights" not in self.sections:
            return "ready for the demo and your own texts; what `ulmfit-fastai imdb` needs: doctor --for imdb"
        return "ready"

    @property
    def text(self) -> str:
        """The whole of it, ready to print."""
        shown = [f"ulmfit-fastai {__version__}, Python {platform.python_version()}, {platform.platform()}"]
        for title, lines in self.sections.items():
            shown += ["", title]
            for line in lines:
                shown.append(f"  {line.status:<7} {line.text}")
                shown += [f"          {part}" for part in line.advice.splitlines()]
        return "\n".join([*shown, "", self.verdict])


@dataclass(frozen=True)
class Asset:
    """Something to be downloaded once: where it comes from and where it is looked for."""

    name: str
    url: str
    places: tuple[Path, ...]
    by_hand: str  # where to put it after fetching it oneself
    needed: bool  # by `ulmfit-fastai imdb`

    @property
    def found(self) -> Path | None:
        """Where it lies already: a file, or a folder with something in it."""
        there = (place for place in self.places if place.is_file() or place.is_dir() and any(place.iterdir()))
        return next(there, None)


def diagnose(purpose: str = "imdb", *, network: bool = True) -> Diagnosis:
    """Look at what the purpose, 'texts' or 'imdb', takes. `network=False` leaves the hosts alone.

    Only the latter needs what is downloaded, and fastai to say from where, whose import takes longer than all the rest.
    """
    diagnosis = Diagnosis()
    answers = _asked_hosts() if network and purpose == "imdb" else None
    diagnosis.sections["Installed"] = list(_guarded(_versions))
    diagnosis.sections["Device"] = list(_guarded(_device))
    diagnosis.sections["Memory and disk"] = list(_guarded(_room))
    diagnosis.sections["Weights that come with the package"] = list(_guarded(_bundled))
    diagnosis.sections["Caches"] = list(_guarded(_caches))
    if purpose == "imdb":
        hosts = answers() if answers else None
        diagnosis.sections["Data and weights"] = list(_guarded(lambda: _assets(hosts)))
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
        config.read(Path(__file__).parents[2] / "setup.cfg", encoding="utf-8")
        return config["options"]["install_requires"].split()


_KNOWN = {
    "cuda": "training on a GPU was rehearsed on a look-alike of one, its memory and speed were calculated; no GPU has "
            "measured them yet",
    "mps": "training on a Mac's GPU was rehearsed on a look-alike of one; no Mac has measured its speed and memory yet"}
"""What docs/devices.md says of devices other than the CPU, whose numbers were measured."""


def _device() -> Iterator[Line]:
    import torch

    from ..model.devices import best_device
    from ..model.precision import resolve
    from ..results.environment import describe_device

    device = best_device()
    name, precision = describe_device(device)["name"], resolve("auto", device)
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        yield Line(OK, f"{torch.cuda.device_count()} x {name}, {memory:.0f} GB; precision {precision}")
    else:
        yield Line(OK, f"{device.type}: {name}; precision {precision}")
    if device.type in _KNOWN:
        yield Line(NOTE, _KNOWN[device.type])
    yield Line(OK, f"CPU threads: {torch.get_num_threads()}, cores: {os.cpu_count()}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > (os.cpu_count() or 1) + 0.5:
        yield Line(NOTE, f"{load:.1f} programs at work on {os.cpu_count()} cores: training gets its share of them only",
                   "wait for the others, or train with OMP_NUM_THREADS=1: threads that wait for each other lose most")
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        yield Line(NOTE, f"there is an NVIDIA driver, but torch {torch.__version__} does not use it",
                   "install torch for CUDA: https://pytorch.org/get-started/locally/")


def _room() -> Iterator[Line]:
    free = available_memory()
    if free is None:
        yield Line(NOTE, "free memory: unknown on this system")
    else:
        advice = f"the full-size model may need {FREE_MEMORY_GB:.0f} GB on the CPU; --preset quick needs less"
        enough = free >= FREE_MEMORY_GB
        yield Line(OK if enough else NOTE, f"{free:.1f} GB of memory free", "" if enough else advice)
    places = {"runs (this folder)": Path.cwd(), "fastai's cache": fastai_home()}
    for name, place in places.items():
        disk = shutil.disk_usage(_nearest(place)).free / 2**30
        yield Line(OK if disk >= FREE_DISK_GB else PROBLEM, f"{disk:.1f} GB of disk free for {name}: {place}",
                   "" if disk >= FREE_DISK_GB else f"{FREE_DISK_GB:.0f} GB are needed; FASTAI_HOME moves the cache")
        if not os.access(_nearest(place), os.W_OK):
            yield Line(PROBLEM, f"no permission to write to {_nearest(place)}")


def bundled_weights() -> list[str]:
    """Names of the files of weights that came with the package."""
    from ..model.pretrained import BUNDLED

    return sorted(path.stem for path in BUNDLED.glob("*.safetensors"))


def _bundled() -> Iterator[Line]:
    found = bundled_weights()
    yield Line(OK if found else NOTE, ", ".join(found) or "none")


def _assets(hosts: dict[str, str | None] | None) -> Iterator[Line]:
    bundled = bundled_weights()
    for asset in known_assets():
        advice = f"by hand: fetch {asset.url}\nand {asset.by_hand}"
        if asset.found:
            yield Line(OK, f"{asset.name}: in {asset.found}")
        elif hosts is None:
            yield Line(NOTE, f"{asset.name}: not in the cache, would be downloaded when first used", advice)
        elif hosts[_host(asset.url)] is None:
            yield Line(OK, f"{asset.name}: not in the cache, will be downloaded when first used")
        else:
            needed = asset.needed and not (bundled and asset.name.startswith("wt103"))
            yield Line(MISSING if needed else NOTE, f"{asset.name}: not in the cache, and its host cannot be reached",
                       advice)


def known_assets() -> list[Asset]:
    """The weights and data sets that the commands fetch."""
    from fastai.data.external import URLs

    from ..texts.corpora import CORPORA
    from ..texts.tasks import TASKS, TREC_ADDRESS, TREC_FILES

    data, archive, models = (fastai_folder(key) for key in ("data", "archive", "model"))
    assets = []
    for url in (URLs.WT103_FWD, URLs.WT103_BWD):
        name = Path(url).stem
        assets.append(Asset(name, url, (models / name,), f"unpack it into {models}", True))
    addresses = {task.name: task.address for task in TASKS.values() if task.address}
    for name, address in {**addresses, **{name: address for name, (address, _) in CORPORA.items()}}.items():
        url = getattr(URLs, address)
        places = (data / Path(url).stem, archive / Path(url).name)
        path = " (or give its path with --data)" if name == "imdb" else ""
        assets.append(Asset(name, url, places, f"put it, as it is, at {places[1]}{path}", name == "imdb"))
    name = next(iter(TREC_FILES))
    files = ", ".join(TREC_FILES)
    assets.append(Asset("trec6", TREC_ADDRESS + name, (data / "trec6" / name,), f"put {files} into {data / 'trec6'}",
                        False))
    return assets


def _caches() -> Iterator[Line]:
    folders = {"fastai's cache": fastai_home(), "token stores": token_stores()}
    for name, folder in folders.items():
        if folder.is_dir():
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
            entries = sum(1 for path in folder.iterdir() if path.is_dir())
            yield Line(OK, f"{name}: {folder}, {entries} folders, {size:,.0f} MB")
        else:
            yield Line(OK, f"{name}: {folder}, nothing there yet")


def _asked_hosts() -> Callable[[], dict[str, str | None]]:
    """Ask all hosts at once, one small request each, and go on.

    Returns:
        What gives host -> None where it answers, else why not; at most `TIMEOUT` seconds after the question.
    """
    try:
        urls = {_host(asset.url): asset.url for asset in known_assets()}
    except Exception as error:  # fastai is missing or broken: another section says so
        unknown: dict[str, str | None] = {"hosts": f"not known ({type(error).__name__}: {error})"}
        return lambda: unknown
    found: dict[str, str | None] = {}

    def ask(host: str) -> None:
        found[host] = unreachable(urls[host])

    end = time.monotonic() + TIMEOUT
    asked = {host: threading.Thread(target=ask, args=(host,), daemon=True) for host in urls}
    for thread in asked.values():
        thread.start()

    def answers() -> dict[str, str | None]:
        for thread in asked.values():
            thread.join(max(end - time.monotonic(), 0.0))
        return {host: found.get(host, f"no answer in {TIMEOUT:g} s") for host in urls}

    return answers


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
    from ..tokens.store_files import cache_root

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
