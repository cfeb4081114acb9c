"""Bringing one file: what a broken line, an unreliable server and a changed file cost."""

import hashlib
import threading

import numpy as np
import pytest

from popdask.datasets import Downloads, FetchError, Patience
from popdask.datasets.transfer import MissingFileError
from tests.fetch.conftest import HASTE

BODY = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture
def url(site):
    site.add("big.tif", BODY)
    return f"{site.url}/big.tif"


def kept(downloads):
    """Names in the cache, without locks and notes."""
    return sorted(
        path.name for path in downloads.folder.iterdir() if path.suffix not in (".lock", ".json")
    )


def test_a_file_comes_whole_with_its_checksum(site, url, downloads):
    got = downloads.get(url)
    assert got.path.read_bytes() == BODY
    assert got.sha256 == hashlib.sha256(BODY).hexdigest()
    assert site.sent == len(BODY)


def test_a_second_fetch_asks_for_nothing(site, url, downloads):
    first = downloads.get(url)
    assert Downloads(downloads.folder).get(url) == first
    assert len(site.requests) == 1


def test_a_cut_connection_goes_on_where_it_stopped(site, url, downloads):
    site.cuts = [1_000_000, 700_000]
    assert downloads.get(url).path.read_bytes() == BODY
    spans = [span for _, span in site.asked()]
    assert spans == ["", "bytes=1000000-", "bytes=1700000-"]
    assert site.sent == len(BODY), "no byte was sent twice"


def test_another_process_goes_on_where_one_gave_up(site, url, tmp_path):
    hasty = Downloads(tmp_path / "cache", patience=Patience(attempts=1))
    site.cuts = [1_000_000]
    with pytest.raises(FetchError, match=r"could not be fetched .* connection broke; .* is kept"):
        hasty.get(url)
    assert kept(hasty) == [f"{hashlib.md5(url.encode()).hexdigest()}-big.tif.part"]
    assert Downloads(tmp_path / "cache").get(url).path.read_bytes() == BODY
    assert site.sent == len(BODY)


def test_a_part_of_an_older_file_is_not_continued(site, url, tmp_path):
    hasty = Downloads(tmp_path / "cache", patience=Patience(attempts=1))
    site.cuts = [1_000_000]
    with pytest.raises(FetchError):
        hasty.get(url)
    newer = BODY[::-1]
    site.add("big.tif", newer)
    assert Downloads(tmp_path / "cache").get(url).path.read_bytes() == newer
    assert site.sent == 1_000_000 + len(BODY)


@pytest.mark.parametrize("lacks", ["ranges", "validators"])
def test_a_server_without_ranges_or_validators_starts_again(site, url, downloads, lacks):
    setattr(site, lacks, False)
    site.cuts = [1_000_000]
    assert downloads.get(url).path.read_bytes() == BODY
    assert site.sent == 1_000_000 + len(BODY)


def test_a_file_that_became_shorter_starts_again(site, url, tmp_path):
    hasty = Downloads(tmp_path / "cache", patience=Patience(attempts=1))
    site.cuts = [1_000_000]
    with pytest.raises(FetchError):
        hasty.get(url)
    site.statuses = [416]
    assert Downloads(tmp_path / "cache", patience=HASTE).get(url).path.read_bytes() == BODY


def test_a_file_of_untold_length_comes(site, url, downloads):
    site.lengths = False
    site.cuts = [1_000_000]
    assert downloads.get(url).path.read_bytes() == BODY
    assert site.sent == len(BODY)


def test_a_busy_server_is_asked_again(site, url, downloads, tmp_path):
    told = []
    site.statuses = [503, 500]
    downloads = Downloads(tmp_path / "other", patience=HASTE, tell=told.append)
    assert downloads.get(url).path.read_bytes() == BODY
    assert [line.split(";")[0] for line in told] == [
        "big.tif: the server answers 503",
        "big.tif: the server answers 500",
    ]


def test_a_server_that_stays_busy_is_left(site, url, downloads):
    site.statuses = [503] * 9
    with pytest.raises(FetchError, match=r"/big.tif could not be fetched in 3 attempts, .* 503"):
        downloads.get(url)
    assert len(site.requests) == 3


def test_what_is_forbidden_or_missing_is_not_asked_for_again(site, url, downloads):
    site.statuses = [403]
    with pytest.raises(FetchError, match=r"big.tif is refused by the server \(HTTP 403"):
        downloads.get(url)
    with pytest.raises(MissingFileError, match=r"none.tif is not there \(HTTP 404\)"):
        downloads.get(f"{site.url}/none.tif")
    assert len(site.requests) == 2


def test_a_server_that_is_not_there_is_told_in_one_sentence(downloads):
    with pytest.raises(FetchError) as told:
        downloads.get("http://me:secret@127.0.0.1:9/big.tif")
    assert str(told.value) == (
        "http://127.0.0.1:9/big.tif could not be fetched in 3 attempts, at last: the host "
        "127.0.0.1 cannot be reached; nothing of it has come: check the network, and fetch again."
    )
    with pytest.raises(FetchError, match=r"the host nowhere.invalid cannot be reached; nothing of"):
        downloads.get("http://nowhere.invalid/big.tif")


@pytest.mark.parametrize("header", ["Repr-Digest", "Content-MD5"])
def test_a_checksum_that_the_server_tells_is_compared(site, url, downloads, header):
    site.digest = header
    site.cuts = [500_000]
    assert downloads.get(url).path.read_bytes() == BODY


def test_a_file_with_a_wrong_checksum_is_not_kept(site, url, downloads):
    site.digest = "wrong"
    with pytest.raises(FetchError, match=r"checksum is not sha256:.*; what came was thrown away"):
        downloads.get(url)
    assert kept(downloads) == []


def test_a_spoiled_file_in_the_cache_is_brought_again(site, url, downloads):
    path = downloads.get(url).path
    path.write_bytes(b"spoiled")
    assert downloads.get(url).path.read_bytes() == BODY
    assert len(site.requests) == 2


def test_a_source_that_changed_is_told_not_taken(site, url, downloads):
    path = downloads.get(url).path
    path.unlink()
    site.add("big.tif", b"a new version")
    with pytest.raises(FetchError, match=r"is another file than the one fetched on \d{4}-") as told:
        downloads.get(url)
    assert kept(downloads) == []
    note = str(told.value).split("remove ")[1].split(" and fetch")[0]
    assert note == f"{path}.json"
    downloads.forget(url)
    assert downloads.get(url).path.read_bytes() == b"a new version"


def test_two_fetches_at_once_bring_a_file_once(site, url, tmp_path):
    site.wait = threading.Event()
    got = []
    told = threading.Event()
    downloads = Downloads(tmp_path / "cache", patience=HASTE, tell=lambda line: told.set())
    both = [threading.Thread(target=lambda: got.append(downloads.get(url))) for _ in range(2)]
    for thread in both:
        thread.start()
    assert told.wait(300), "one of them waits for the other"
    site.wait.set()
    for thread in both:
        thread.join(300)
    assert len(got) == 2 and got[0] == got[1]
    assert got[0].path.read_bytes() == BODY
    assert site.sent == len(BODY)


def test_how_far_a_file_is_can_be_watched(site, url, tmp_path):
    seen = []
    site.cuts = [1_000_000]
    Downloads(tmp_path / "cache", patience=HASTE, watch=lambda *told: seen.append(told)).get(url)
    assert {name for name, _, _ in seen} == {"big.tif"}
    assert {total for _, _, total in seen} == {len(BODY)}
    done = [done for _, done, _ in seen]
    assert done == sorted(done) and done[-1] == len(BODY)


def test_secrets_of_a_mirror_are_not_told(site, url, downloads):
    secret = url.replace("http://", "http://me:word@") + "?token=abc"
    with pytest.raises(MissingFileError) as told:
        downloads.get(secret)
    assert not {"word", "abc"} & set(str(told.value).replace(":", " ").replace("=", " ").split())


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("POPDASK_CACHE", str(tmp_path / "named"))
    assert Downloads().folder == tmp_path / "named"
    monkeypatch.delenv("POPDASK_CACHE")
    assert Downloads().folder.name == "popdask"
