import pytest

from tamis.errors import UsageError
from tamis.serving.keys import (
    ApiKey,
    ApiKeys,
    KeyRing,
    hash_of,
    new_key,
    parse_keys,
    read_keys,
    write_keys,
)


def a_key(name, revoked=False):
    key = new_key()
    return key, ApiKey(name=name, hash=hash_of(key), revoked=revoked)


def test_a_key_is_known_by_its_hash_alone(tmp_path):
    key, kept = a_key("ada")
    write_keys(tmp_path / "keys.json", [kept])
    content = (tmp_path / "keys.json").read_text("utf-8")
    assert key not in content
    assert hash_of(key) in content
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600
    assert read_keys(tmp_path / "keys.json").who(key) == "ada"


@pytest.mark.parametrize("given", ["", "tamis_", "x" * 100_000, "\udcff", "ключ", "\x00"])
def test_what_is_no_key_is_nobody(given):
    _, kept = a_key("ada")
    assert ApiKeys(keys=(kept,)).who(given) is None


def test_an_overlong_key_is_not_even_hashed():
    long = "k" * 300
    assert ApiKeys(keys=(ApiKey(name="a", hash=hash_of(long)),)).who(long) is None


def test_a_revoked_key_is_nobody_and_others_stay():
    (one, kept_one), (two, kept_two) = a_key("one", revoked=True), a_key("two")
    keys = ApiKeys(keys=(kept_one, kept_two))
    assert keys.who(one) is None
    assert keys.who(two) == "two"


def test_two_new_keys_differ():
    assert len({new_key() for _ in range(100)}) == 100


def test_a_ring_follows_its_file(tmp_path):
    path = tmp_path / "keys.json"
    fixed_key, fixed = a_key("fixed")
    ring = KeyRing(ApiKeys(keys=(fixed,)), path)
    assert len(ring) == 1
    key, kept = a_key("new")
    write_keys(path, [kept])
    assert ring.who(key) is None
    ring.refresh()
    assert (ring.who(key), ring.who(fixed_key)) == ("new", "fixed")
    write_keys(path, [kept.model_copy(update={"revoked": True})])
    ring.refresh()
    assert ring.who(key) is None
    assert len(ring) == 1


def test_a_ring_keeps_its_keys_when_the_file_is_spoilt(tmp_path):
    path = tmp_path / "keys.json"
    key, kept = a_key("ada")
    write_keys(path, [kept])
    ring = KeyRing(ApiKeys(), path)
    path.write_text("{nonsense", "utf-8")
    with pytest.raises(UsageError):
        ring.refresh()
    assert ring.who(key) == "ada"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"keys": [{"name": "a", "hash": "SECRETVALUE"}]}',
        '{"keys": [{"name": "a b", "hash": "' + "0" * 64 + '"}]}',
        '{"keys": [{"name": "a", "hash": "' + "0" * 64 + '", "key": "SECRETVALUE"}]}',
    ],
)
def test_a_wrong_file_is_refused_without_repeating_it(content):
    with pytest.raises(UsageError) as caught:
        parse_keys(content, "KEYS")
    assert str(caught.value).startswith("KEYS: ")
    assert "SECRETVALUE" not in str(caught.value)


def test_a_file_that_is_not_there_holds_no_keys(tmp_path):
    assert read_keys(tmp_path / "none.json") == ApiKeys()
