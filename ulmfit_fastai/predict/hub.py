"""A model's folder to and from Hugging Face's hub, or another that $HF_ENDPOINT names; needs the extra `hub`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from .._errors import UlmfitError
from .._version import __version__
from ..tokens.pieces import FILE_NAME as PIECES_FILE

FILES = ("config.json", "recipe.json", "metrics.json", "vocab.json", "README.md", PIECES_FILE,
         "classifier_*.safetensors")
"""What a model consists of: nothing else goes up, or comes down."""


def fetch(name: str, *, revision: str | None = None, token: str | bool | None = None) -> Path:
    """The folder of a model in the hub's cache, fetched if it isn't there.

    Args:
        name: 'user/name'.
        revision: a branch, a tag or a commit; None: the newest.
        token: for a private one; None: the one that `hf auth login` kept.

    Raises:
        UlmfitError: the model can't be had, or the extra `hub` is not installed.
    """
    hub = library().HfApi(**_client())
    with _said(name, "fetched"):
        return Path(hub.snapshot_download(name, revision=revision, token=token, allow_patterns=list(FILES)))


def push(folder: Path, name: str, *, private: bool | None = None, token: str | bool | None = None,
         message: str | None = None) -> str:
    """Upload a model's folder and return its address; the repository is made if it isn't there.

    Raises:
        UlmfitError: the hub refuses, or the extra `hub` is not installed.
    """
    hub = library().HfApi(**_client())
    with _said(name, "uploaded"):
        address = hub.create_repo(name, private=private, token=token, exist_ok=True)
        hub.upload_folder(repo_id=name, folder_path=folder, token=token, allow_patterns=list(FILES),
                          commit_message=message or "Upload an ULMFiT classifier")
    return str(address)


def library() -> ModuleType:
    """huggingface_hub; UlmfitError where it is not installed."""
    try:
        import huggingface_hub
    except ImportError:
        raise UlmfitError("the hub needs huggingface_hub, which is not installed",
                          advice='pip install "ulmfit-fastai[hub]"') from None
    return huggingface_hub


def _client() -> dict[str, Any]:
    """Who asks, and where: the address is read now, since huggingface_hub reads it once, when it is imported."""
    return {"endpoint": os.environ.get("HF_ENDPOINT") or None, "library_name": "ulmfit_fastai",
            "library_version": __version__}


@contextmanager
def _said(name: Any, done: str) -> Iterator[None]:
    """What the hub's client raises, in words."""
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        yield
    except HFValidationError as error:
        raise UlmfitError(f"expected a model's name such as user/name, found {name!r}", found=name) from error
    except RepositoryNotFoundError as error:
        raise UlmfitError(f"there is no model {name} on the hub that you may see", found=name,
                          advice="is it spelt right? a private one needs `token=`, or `hf auth login`") from error
    except LocalEntryNotFoundError as error:
        raise UlmfitError(f"{name} can't be {done}: the hub does not answer, and it is not in the cache",
                          found=name) from error
    except Exception as error:  # the hub's others and the network's, whose library changes from version to version
        mute = any(word in type(error).__name__ for word in ("Connect", "Timeout"))
        why = f"{'the hub does not answer: ' if mute else ''}{str(error).strip()}"
        raise UlmfitError(f"{name} can't be {done}: {why}", found=name) from error
