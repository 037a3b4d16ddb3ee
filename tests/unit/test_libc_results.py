"""Results have the names that netdb.h gives them, and an address is no name, by the machine's own libc's judgement."""

from __future__ import annotations

import ctypes
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytracecon.names.libc_results import code_name, host_of, is_numeric, text_of

libc = ctypes.CDLL(None)
libc.gai_strerror.restype = libc.hstrerror.restype = ctypes.c_char_p

# Python was compiled with the libc's own netdb.h.
EAI = {name: value for name, value in vars(socket).items() if name.startswith("EAI_") and name != "EAI_MAX"}
# Python does not have these; what the libc says of the number tells which one it is.
ASYNCHRONOUS = {
    -100: ("EAI_INPROGRESS", b"Processing request in progress"),
    -101: ("EAI_CANCELED", b"Request canceled"),
    -102: ("EAI_NOTCANCELED", b"Request not canceled"),
    -103: ("EAI_ALLDONE", b"All requests done"),
    -104: ("EAI_INTR", b"Interrupted by a signal"),
    -105: ("EAI_IDN_ENCODE", b"Parameter string not correctly encoded"),
}
H_ERRNO = {
    -1: ("NETDB_INTERNAL", b"Resolver internal error"),
    1: ("HOST_NOT_FOUND", b"Unknown host"),
    2: ("TRY_AGAIN", b"Host name lookup failure"),
    3: ("NO_RECOVERY", b"Unknown server error"),
    4: ("NO_DATA", b"No address associated with name"),
}
NUMBERS = ["0", "1", "9", "10", "255", "256", "017", "08", "0x7f", "0X7F", "0x", "65535", "65536", "16777216"]
NUMBERS += ["4294967295", "4294967296", "00000000000000000000001", "99999999999999999999", "", "+1", "-1", "1_0", "a"]


def libc_takes_for_address(name: str) -> bool:
    """By AI_NUMERICHOST nothing is looked up."""
    try:
        socket.getaddrinfo(name.encode(), None, flags=socket.AI_NUMERICHOST)
    except OSError:
        return False
    return True


@pytest.mark.parametrize(("name", "value"), EAI.items())
def test_a_result_of_getaddrinfo_has_its_constants_name(name: str, value: int) -> None:
    assert code_name("getaddrinfo", value) == name


@pytest.mark.parametrize("value", ASYNCHRONOUS)
def test_a_result_that_python_does_not_have_is_the_one_the_libc_describes(value: int) -> None:
    name, described = ASYNCHRONOUS[value]
    if libc.gai_strerror(value) == b"Unknown error":
        pytest.skip("this libc has no getaddrinfo_a")
    assert libc.gai_strerror(value) == described
    assert code_name("getaddrinfo", value) == name


@pytest.mark.parametrize("value", H_ERRNO)
def test_a_result_of_gethostbyname_is_the_h_errno_the_libc_describes(value: int) -> None:
    name, described = H_ERRNO[value]
    assert libc.hstrerror(value) == described
    assert code_name("gethostbyname", value) == name


def test_success_is_ok_and_a_number_without_a_name_stays_one() -> None:
    assert code_name("getaddrinfo", 0) == code_name("gethostbyname", 0) == "ok"
    assert code_name("getaddrinfo", -77) == "EAI_-77"
    assert code_name("gethostbyname", 9) == "H_ERRNO_9"


def test_a_call_that_failed_for_a_reason_nobody_could_read_has_failed() -> None:
    assert code_name("gethostbyname", 0x7FFF) == "failed"


@given(st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=5).map(".".join))
@example("127.0.0.1")
@example("127.1")
@example("0x7f000001")
@example("017.0.0.1")
@example("1.2.3.4 ")
@example("1.2.3.4 x")
@example(" 1.2.3.4")
@example("1.2.3.4\n")
@example("1.2.3.4.")
def test_an_ipv4_address_is_what_the_libc_takes_for_one(name: str) -> None:
    assert is_numeric(name) == libc_takes_for_address(name)


@given(st.text("0123456789abcdefxX.:- ", max_size=12) | st.ip_addresses().map(str))
@example("::1")
@example("::ffff:1.2.3.4")
@example("::ffff:127.1")
@example("1::2::3")
@example("a.example")
@example("dead.beef")
def test_whatever_has_no_scope_is_an_address_where_the_libc_takes_it_for_one(name: str) -> None:
    assert is_numeric(name) == libc_takes_for_address(name)


@pytest.mark.parametrize("name", ["fe80::1%lo", "::1%1", "ff02::1%lo", "fe80::1%1"])
def test_an_address_with_a_scope_is_one(name: str) -> None:
    assert libc_takes_for_address(name)
    assert is_numeric(name)


def test_an_address_with_a_scope_of_another_namespace_is_one() -> None:
    assert not libc_takes_for_address("fe80::1%elsewhere0")
    assert is_numeric("fe80::1%elsewhere0")


@given(st.text(st.characters(exclude_categories=[]), max_size=300))
@example("::\0")
@example(":\ud800")
@example("\uff11.\uff12.\uff13.\uff14")
@example("\u0661")
def test_any_text_is_an_address_or_none(name: str) -> None:
    assert is_numeric(name) <= name.partition("%")[0].isascii()


@pytest.mark.parametrize(
    ("asked", "host"),
    [
        ("www.example.com", "www.example.com"),
        ("www.example.com.", "www.example.com"),
        ("WWW.Example.com", "WWW.Example.com"),
        ("localhost", "localhost"),
        ("a..", "a."),
        (".", None),
        ("..", None),
        ("", None),
        ("127.0.0.1", None),
        ("127.0.0.1.", None),
        ("127.1", None),
        ("0x7f000001", None),
        ("::1%lo", None),
    ],
)
def test_a_host_is_a_name_without_its_trailing_dot(asked: str, host: str | None) -> None:
    assert host_of(asked) == host


def test_a_name_that_is_not_utf8_is_shown_as_it_was() -> None:
    assert text_of(b"b\xfccher.example") == "b\\xfccher.example"
    assert text_of("bücher.example".encode()) == "bücher.example"
    assert text_of(b"") == ""
