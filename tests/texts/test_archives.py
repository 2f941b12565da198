"""Archives and folders of strangers: nothing lands on the disk, nothing fills the memory, nothing is waited for."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from ulmfit_fastai._errors import UlmfitError
from ulmfit_fastai.texts import archives
from ulmfit_fastai.texts.archives import MOST_BYTES, read_members


def tar(path: Path, *members: tarfile.TarInfo, content: bytes = b"good") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            if member.isreg() and not member.size:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content.ljust(member.size, b"\0")) if member.isreg() else None)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def texts(path: Path) -> dict[str, bytes]:
    return dict(read_members(path, lambda name: name.endswith(".txt")))


def test_a_bomb_is_refused_by_its_size_before_it_is_read(tmp_path, monkeypatch):
    bomb = tar(tmp_path / "imdb.tgz", member("a.txt"), member("b.txt", size=MOST_BYTES + 1))
    assert bomb.stat().st_size < MOST_BYTES / 100
    read = []
    extract = tarfile.TarFile.extractfile
    monkeypatch.setattr(tarfile.TarFile, "extractfile", lambda self, one: read.append(one.name) or extract(self, one))
    with pytest.raises(UlmfitError, match=r"imdb\.tgz: b\.txt has 16 MB; expected a text of at most 16 MB"):
        texts(bomb)
    assert read == ["a.txt"]


def test_a_large_member_that_nobody_wants_is_passed_over(tmp_path):
    assert texts(tar(tmp_path / "a.tgz", member("big.bin", size=MOST_BYTES + 1), member("a.txt"))) == {"a.txt": b"good"}


def test_a_large_file_of_a_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_BYTES", 100)
    (tmp_path / "a.txt").write_bytes(b"x" * 101)
    with pytest.raises(UlmfitError, match="expected a text of at most"):
        texts(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "a.txt").write_bytes(b"good")
    assert texts(tmp_path) == {"a.txt": b"good"}


def test_links_devices_and_pipes_of_an_archive_are_not_read(tmp_path):
    strange = tar(tmp_path / "a.tgz", member("pipe.txt", tarfile.FIFOTYPE), member("null.txt", tarfile.CHRTYPE),
                  member("disk.txt", tarfile.BLKTYPE), member("soft.txt", tarfile.SYMTYPE, "/etc/passwd"),
                  member("hard.txt", tarfile.LNKTYPE, "/etc/passwd"), member("a.txt"))
    assert texts(strange) == {"a.txt": b"good"}


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/ulmfit-out.txt", "a/../../out.txt"])
def test_no_name_leads_out_of_an_archive(name, tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    assert list(texts(tar(place / "a.tgz", member(name))).values()) == [b"good"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tgz", "in"]
    assert not Path("/tmp/ulmfit-out.txt").exists()
