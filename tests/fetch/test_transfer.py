"""Bringing one file: what a broken line, an unreliable server and a changed file cost."""

import hashlib
import threading
from dataclasses import replace

import numpy as np
import pytest
import requests

from popdask.datasets import Downloads, FetchError, Patience, transfer
from popdask.datasets.transfer import MissingFileError, Part
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
    downloads = Downloads(tmp_path / "other", patience=HASTE, log=told.append)
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
    downloads = Downloads(tmp_path / "cache", patience=HASTE, log=lambda line: told.set())
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


@pytest.mark.parametrize("sends", [1, 5])
def test_a_server_may_send_elsewhere_a_few_times(site, url, downloads, sends):
    site.redirects = [url] * sends
    assert downloads.get(url).path.read_bytes() == BODY


@pytest.mark.parametrize("places", [["/big.tif"] * 20, ["file:///etc/passwd"], ["ftp://x.org/a"]])
def test_a_server_that_sends_astray_is_left_at_once(site, url, downloads, places):
    for ask in (downloads.get, downloads.has):
        site.redirects, site.requests = list(places), []
        with pytest.raises(FetchError, match=r"big\.tif sends on more than 5 times, or to a place"):
            ask(url)
        assert len(site.requests) == min(len(places), 6)
    assert kept(downloads) == []


def test_nobody_is_sent_from_https_to_http():
    answer = requests.Response()
    answer.status_code, answer.url = 302, "https://example.org/pop.tif"
    answer.headers["Location"] = "http://example.org/pop.tif"
    with pytest.raises(requests.exceptions.InvalidSchema):
        transfer._session(HASTE).get_redirect_target(answer)
    answer.headers["Location"] = "https://mirror.example.org/pop.tif"
    assert transfer._session(HASTE).get_redirect_target(answer) == answer.headers["Location"]


@pytest.mark.parametrize("lengths", [True, False])
def test_a_file_that_is_too_large_does_not_come(site, url, tmp_path, lengths):
    site.lengths = lengths
    strict = Downloads(tmp_path / "cache", patience=replace(HASTE, most=1_000_000))
    with pytest.raises(FetchError, match=r"is larger than 1,000,000 bytes, .* it is not kept"):
        strict.get(url)
    assert kept(strict) == [] and len(site.requests) == 1


def test_a_file_for_which_there_is_no_room_does_not_come(site, url, tmp_path):
    huge = Part(tmp_path / "big.part")
    bring = transfer.ResumingDownloader(huge.path, HASTE)
    with pytest.raises(FetchError, match=r"has 1,000(,000){5} bytes, and .* bytes are free"):
        bring._check_room(url, 10**18)


def test_links_in_the_cache_are_not_written_through(site, url, downloads, tmp_path):
    victim = tmp_path / "thesis.txt"
    victim.write_text("years of work")
    downloads.folder.mkdir()
    name = f"{hashlib.md5(url.encode()).hexdigest()}-big.tif"
    (downloads.folder / f"{name}.part").symlink_to(victim)
    assert downloads.get(url).path.read_bytes() == BODY
    assert victim.read_text() == "years of work"
