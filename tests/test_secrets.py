"""No part of a password is said, however badly it is escaped, and places stay what they are."""

import re
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from popdask.cli.console import complain, say
from popdask.errors import InputError
from popdask.io.paths import (
    file_system,
    fsspec_options,
    gdal_path,
    is_unescaped,
    without_keys,
    without_secrets,
)

SCHEMES = st.sampled_from(["http", "https", "s3", "ftp", "tls", "/vsicurl/https"])
HOSTS = st.sampled_from(["host", "example.org", "127.0.0.1:8000", "[::1]:80", "bucket"])
PATHS = st.sampled_from(["", "/", "/a.tif", "/a/b_{year}.tif", "/a%20b.tif", "/a,b;c.tif"])
#: A mark that is found again, among letters that end the parts of URLs.
PASSWORDS = st.tuples(st.text("@/?#:%&=+.a", max_size=6), st.text("@/?#:%&=+.b", max_size=6)).map(
    lambda parts: f"{parts[0]}SESAME{parts[1]}SESAME"
)
USERS = st.sampled_from(["me", "", "me%40work", "a.b"])
QUERIES = st.sampled_from(["", "?token=SESAME", "?a=1&sig=SESAME/b@c", "#SESAME"])


@given(SCHEMES, HOSTS, PATHS, PASSWORDS, USERS, st.booleans())
def test_no_part_of_a_password_is_left(scheme, host, path, password, user, escaped):
    password = quote(password, safe="") if escaped else password
    place = without_secrets(f"{scheme}://{user}:{password}@{host}{path}")
    assert place == f"{scheme}://{host}{path}"


@given(st.sampled_from(["http", "https", "/vsicurl/https"]), HOSTS, PATHS, PASSWORDS, st.booleans())
def test_a_password_that_programs_would_take_for_a_host_is_refused(
    scheme, host, path, password, escaped
):
    told = quote(password, safe="") if escaped else password
    # Without a path behind it, that of p@ss/word@host is taken for a path at the host ss.
    assume(path or not re.match(r"[^@/?#]*@[\w.]+[/?#]", told))
    place = f"{scheme}://me:{told}@{host}{path}"
    held = "/vsicurl/" + place if scheme == "https" else place
    if any(letter in told for letter in "@/?#"):
        with pytest.raises(InputError, match="expected them escaped") as caught:
            gdal_path(held)
        assert "SESAME" not in str(caught.value)
    else:
        assert gdal_path(place) == place
        plain = place.removeprefix("/vsicurl/")
        assert urlsplit(plain).netloc.rpartition("@")[2] == host


@given(
    SCHEMES,
    st.sampled_from(["", "me@", "me:SESAME@", "me%40work:SESAME@"]),
    HOSTS,
    PATHS,
    st.sampled_from(["", "/a@b.tif", "/a@2x/b.tif", "?k=me@work"]),
)
def test_places_whose_host_is_clear_are_taken(scheme, user, host, path, end):
    assume(":" not in user or end != "/a@2x/b.tif")  # which may be another host and its path
    place = f"{scheme}://{user}{host}{path}{end}"
    assert is_unescaped(place) is False


@given(SCHEMES, HOSTS, PATHS, QUERIES, st.sampled_from(["", "me:SESAME@", "SESAME@"]))
def test_queries_and_users_go_and_places_stay(scheme, host, path, query, user):
    place = without_secrets(f"{scheme}://{user}{host}{path}{query}")
    assert "SESAME" not in place
    if "@" not in query:
        assert place == f"{scheme}://{host}{path}"
        plain = place.removeprefix("/vsicurl/")
        assert urlsplit(plain)[:3] == (scheme.removeprefix("/vsicurl/"), host, path)


@given(st.text("ab/?#@:._{}* ", max_size=30).filter(lambda path: "://" not in path))
def test_paths_stay_as_they_are(path):
    assert without_secrets(f"/data/{path}") == f"/data/{path}"


@given(
    st.lists(st.tuples(SCHEMES, PASSWORDS, HOSTS, PATHS), min_size=1, max_size=3),
    st.sampled_from(["{}", "no frame at {}; check it", "['{}',\n\t'b']", "({})", "'{}'"]),
)
def test_texts_hold_no_password(urls, form):
    texts = [form.format(f"{s}://me:{word}@{host}{path}") for s, word, host, path in urls]
    said = without_keys(" and ".join(texts))
    assert "SESAME" not in said
    for _, _, host, _ in urls:
        assert host in said


@pytest.mark.parametrize("verb", [say, complain])
def test_nothing_that_is_printed_holds_one(verb, capsys, monkeypatch):
    monkeypatch.setenv("MIRROR_PASSWORD", "SESAME-12")
    verb("got https://me:p@SESAME/word@host/a.tif?k=SESAME with SESAME-12")
    captured = capsys.readouterr()
    said = captured.out + captured.err
    assert "SESAME" not in said and "https://host/a.tif" in said


@given(st.sampled_from(["'{}'", "({})", "no frame at {}; check"]), st.text("a=&%/", max_size=9))
def test_headers_of_gdal_are_not_said(form, header):
    text = form.format(f"/vsicurl?url=https%3A//host/a.tif&header.{header}=SESAME")
    assert "SESAME" not in without_keys(text) and "/vsicurl" in without_keys(text)


@given(
    st.sampled_from(["/vsicurl", "/vsicurl_streaming", "/vsizip//vsicurl"]),
    st.sampled_from(["'{}'", "({})", "no frame at {}; check", "file='{}'"]),
    st.lists(
        st.tuples(st.sampled_from(["header.X", "userpwd", "k"]), st.text("a:/@=%?#", max_size=6)),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from(["https://host/x.tif", "https%3A//host/x.tif", "ftp://me:SESAME@host/x.tif"]),
)
def test_options_of_gdal_before_a_url_are_not_said(name, form, options, url):
    told = "&".join(f"{key}={value}SESAME{value}" for key, value in options)
    place = f"{name}?{told}&url={url}"
    assert without_secrets(place) == name
    assert "SESAME" not in without_keys(form.format(place))
    assert name in without_keys(form.format(place))


def test_keys_before_a_bucket_are_refused():
    for verb in (gdal_path, fsspec_options):
        with pytest.raises(InputError, match=r"^s3://bucket/a.tif has keys") as caught:
            verb("s3://AKIA:SESAME@bucket/a.tif")
        assert "SESAME" not in str(caught.value)
    assert gdal_path("s3://bucket/me@work.tif") == "/vsis3/bucket/me@work.tif"


def test_a_server_that_does_not_answer_is_named():
    with pytest.raises(InputError, match=r"^ftp://127.0.0.1:9/a.tif cannot be reach.*refused"):
        file_system("ftp://me:SESAME@127.0.0.1:9/a.tif")


def test_s3_keys_and_signs_in_paths_stay():
    assert without_secrets("s3://bucket/me@work/a@2x.tif") == "s3://bucket/me@work/a@2x.tif"
    assert without_secrets("https://host/a@2x.tif") == "https://host/a@2x.tif"
    assert without_secrets("https://me:p@ss/w@host/a.tif") == "https://host/a.tif"
    assert without_secrets("/vsicurl?url=https%3A%2F%2Fa%3Ab%40c&pc=1") == "/vsicurl"


@given(st.sampled_from(["http", "https"]), st.text(":/@[]?#.%-aß0 {}\t\x00", max_size=12))
def test_a_url_is_taken_or_refused_whatever_stands_in_it(scheme, rest):
    try:
        gdal_path(f"{scheme}://{rest}")
    except InputError as error:
        assert str(error).count("; ") >= 2  # what was found, what was expected, how to mend it
    else:
        host = urlsplit(f"{scheme}://{rest}").hostname
        assert host and not re.search(r"[\s\x00]", host)
