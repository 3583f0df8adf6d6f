import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.corpus.pii import MASKS, PiiFilter
from tamis.corpus.settings import PiiSettings
from tamis.errors import UsageError

KINDS = ("email", "ip", "phone", "iban")


def pii(*kinds, **options):
    return PiiFilter(PiiSettings(kinds=kinds or KINDS, **options))


def test_masks_and_counts():
    text = (
        "Write to jo.doe+x@mail.example.co.uk or call (212) 736-5000 or +44 20 7946 0958; "
        "from 8.8.8.8 and 2001:4860:4860::8888 to GB82 WEST 1234 5698 7654 32."
    )
    masked, counts = pii().apply(text)
    assert masked == ("Write to <EMAIL> or call <PHONE> or <PHONE>; from <IP> and <IP> to <IBAN>.")
    assert counts == {"email": 1, "phone": 2, "ip": 2, "iban": 1}
    assert pii().apply(masked) == (masked, {})
    assert pii("ip").apply(text)[1] == {"ip": 2}
    assert pii().apply("Nothing here.") == ("Nothing here.", {})


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("<a@b.org>, mailto:c_d@e-f.museum.", "<<EMAIL>>, mailto:<EMAIL>."),
        ("müller@bücher.example ok", "<EMAIL> ok"),
        ("x@y.org@z.org", "<EMAIL>@z.org"),
        (f"{'a' * 64}@b.org", "<EMAIL>"),
        (f"{'a' * 65}@b.org", None),
        ("user@localhost @name a @ b.org x.@y.org me@1.2.3.4 a@b.c a@-b.org", None),
        ("@decorator.method", None),
    ],
)
def test_emails(text, masked):
    assert pii("email").apply(text)[0] == (masked or text)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("1.1.1.1, (8.8.4.4).", "<IP>, (<IP>)."),
        ("at 2a00:1450:4001:81b::200e: reply", "at <IP>: reply"),
        ("10.0.0.1 192.168.1.1 127.0.0.1 192.0.2.7 224.0.0.1 2001:db8::1 fe80::1", None),
        ("version 8.8.8.8, v. 8.8.4.4, v8.8.8.8, Section 4.1.2.3, § 9.9.9.9", None),
        ("8.8.8.8.8 8.8.8.888 08.8.8.8 a8.8.8.8 8.8.8.8b 8.8.8.8-9 1,8.8.8", None),
        ("12:30:45 2020:01:02 std::dead 2001:zz 3fff:", None),
        ("x2a00:1450::1 :2a00:1450::1 2a00:1450::1x 2a00:1450::1.5 2a00:1450::1:z", None),
        ("2a00:1450::1. 2a00:1450:: [2a00:1450::1]", "<IP>. <IP> [<IP>]"),
    ],
)
def test_addresses(text, masked):
    assert pii("ip").apply(text)[0] == (masked or text)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("DE89370400440532013000", "<IBAN>"),
        ("FR14 2004 1010 0505 0001 3M02 606 AND MORE", "<IBAN> AND MORE"),
        ("NO93 8601 1117 947,", "<IBAN>,"),
        ("DE89370400440532013001 XX89370400440532013000 GB82 WEST 1234", None),
        ("ADE89370400440532013000 DE893704004405320130001 de89370400440532013000", None),
    ],
)
def test_ibans(text, masked):
    assert pii("iban").apply(text)[0] == (masked or text)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Tel. 212-736-5000/212.736.5001", "Tel. <PHONE>/<PHONE>"),
        ("1-800-397-4209, or 212 736 5000 ext. 44", "<PHONE>, or <PHONE>"),
        ("212-736-5000 " * 3, "<PHONE> " * 3),
        ("call 2127365000 now", "call <PHONE> now"),
        ("file 2127365000, order 4085920", None),
        ("+49 30 901820", "<PHONE>"),
        ("030 901820", None),
        ("on 2012-11-12 10:20, 1234567890123456, 5 C.F.R. 1910.1200, 3,141,592,653", None),
        ("+1 234", None),
        ("x212-736-5000 212-736-50001234", None),
    ],
)
def test_phones(text, masked):
    assert pii("phone").apply(text)[0] == (masked or text)


def test_tables_of_numbers_are_given_up():
    table, number = "1 2\t3 4 5 6 7 8 9 0 1 2\t1 2\n", "212-736-5000"
    assert pii("phone").apply(table * 100 + number)[0] == table * 100 + "<PHONE>"
    masked = pii("phone").apply(f"{number}\n{table * 10_000}{number}")[0]
    assert masked == f"<PHONE>\n{table * 10_000}{number}"


def test_regions():
    assert pii("phone", regions=("DE",)).apply("030 901820")[0] == "<PHONE>"
    both = pii("phone", regions=("DE", "US")).apply("030 901820, 212-736-5000")
    assert both == ("<PHONE>, <PHONE>", {"phone": 2})
    none = pii("phone", regions=())
    assert none.apply("212-736-5000 or +12127365000")[0] == "212-736-5000 or <PHONE>"
    with pytest.raises(UsageError, match=r"filter\.pii\.regions.*'XX'"):
        pii(regions=("XX",))


PARTS = st.sampled_from(
    [
        *("a@b.org", "@c.org", "8.8.8.8", ".8.8", "212-736-5000", "2127365000", "call "),
        *("+44 20 7946 0958", "+", "GB82 WEST 1234 5698 7654 32", "DE89370400440532013000"),
        *("2001:4860:4860::8888", ":", " ", "-", "x", "1", "<", ">", "(", ")", "\ud800"),
        *MASKS.values(),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(PARTS, max_size=12).map("".join))
def test_masking_twice_changes_nothing(text):
    every = pii(regions=("US", "GB"))
    masked, counts = every.apply(text)
    assert every.apply(masked) == (masked, {})
    assert all(counts.values()) and (masked == text) == (not counts)


def test_everything_around_stays():
    chance = random.Random(0)
    found = ["a@b.org", "8.8.8.8", "(212) 736-5000", "DE89370400440532013000"]
    masks = ["<EMAIL>", "<IP>", "<PHONE>", "<IBAN>"]
    picked = [chance.randrange(4) for _ in range(200)]
    text = "".join(f"ünd 😀 {found[i]}\r\n" for i in picked)
    masked, counts = pii().apply(text)
    assert masked == "".join(f"ünd 😀 {masks[i]}\r\n" for i in picked)
    assert sum(counts.values()) == 200


MEGA = 1_000_000
HOSTILE = {
    "one character": "a" * 20 * MEGA,
    "line feeds": "\n" * MEGA,
    "at": "@" * MEGA,
    "local parts": "a" * MEGA + "@",
    "a@": "a@" * (MEGA // 2),
    "labels": "x@" + "a." * (MEGA // 2),
    "hyphens": "x@" + "a-" * (MEGA // 2),
    "long label": "x@" + "a" * MEGA,
    "digits": "1" * MEGA,
    "digits apart": "1 " * (MEGA // 2),
    "table": "4155552 671123 " * (MEGA // 15),
    "parts": "8.8.8." * (MEGA // 6),
    "plus": "+1 " * (MEGA // 3),
    "brackets": "1(" * (MEGA // 2),
    "groups": "GB82 " * (MEGA // 5),
    "hexadecimal": "2abc:" * (MEGA // 5),
    "surrogates": "\ud800@" * (MEGA // 2),
    "NULs": "\x00" * MEGA,
    "emoji": "😀" * MEGA,
    "right to left": "\u202eשלום" * (MEGA // 5),
    "empty": "",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_pass_unchanged(name):
    text = HOSTILE[name]
    masked, counts = pii().apply(text)
    assert (masked == text, counts) == (True, {})


@pytest.mark.timeout(60)
def test_very_many_finds():
    text = "a@b.org, 8.8.8.8; (212) 736-5000\n" * 3_000
    masked, counts = pii().apply(text)
    assert masked == "<EMAIL>, <IP>; <PHONE>\n" * 3_000
    assert counts == {"email": 3_000, "ip": 3_000, "phone": 3_000}
