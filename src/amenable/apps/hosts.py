"""Names by which a request reaches this machine alone."""

from urllib.parse import urlsplit

THIS_MACHINE = frozenset({"127.0.0.1", "localhost", "::1"})


def host_of(header: str) -> str:
    """The name in a Host header, without its port; empty where it is none.

    A web page whose own name was made to lead here (DNS rebinding) is known by it.

    >>> host_of("127.0.0.1:8765"), host_of("[::1]:8765"), host_of("evil.example"), host_of("[::1")
    ('127.0.0.1', '::1', 'evil.example', '')
    """
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""
