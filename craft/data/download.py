"""Downloads that are pinned: what arrives is checked before it is kept, and kept whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from craft import store
from craft.data.errors import DataError

__all__ = ["fetch"]

_CHUNK = 1 << 16


def fetch(url: str, path: Path, *, sha256: str, limit: int, timeout: float = 20.0) -> bytes:
    """Return a pinned file: from `path` if it is there, else downloaded and kept there.

    Parameters
    ----------
    url
        Where it comes from, http or https.
    path
        Where it is kept.
    sha256
        Digest that it must have, in hex.
    limit
        Most bytes that are accepted.
    timeout
        Seconds that the server may stay silent; the whole download may take three times as long.

    Returns
    -------
    The file's content.

    Raises
    ------
    DataError
        If it cannot be downloaded, or has another content; nothing is kept then.
    """
    if path.exists():
        return _kept(path, sha256)
    host = urlsplit(url).hostname or "an address without a host"  # never the whole URL: it may hold a password
    remedy = f"put the file (sha256 {sha256}) at {path} by hand"
    try:
        content = _get(url, limit, timeout)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise DataError(f"could not download {path.name} from {host} ({_reason(error)}); go online, or {remedy}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(f"got {len(content)} bytes with sha256 {found} from {host}, which are not {path.name}; {remedy}")
    store.write(path, content)
    return content


def _kept(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"could not read {path} ({error.strerror}); make it readable, or delete it") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(f"{path} has sha256 {found}, expected {sha256}; delete it to have it downloaded again")
    return content


def _get(url: str, limit: int, timeout: float) -> bytes:
    if urlsplit(url).scheme not in ("http", "https") or "@" in urlsplit(url).netloc:
        raise ValueError("the address must begin with https:// or http:// and hold no password")
    deadline = time.monotonic() + 3 * timeout
    content = bytearray()
    request = Request(url, headers={"User-Agent": "craft"})  # noqa: S310 - the scheme is checked above
    with urlopen(request, timeout=timeout) as response:  # noqa: S310
        while piece := response.read1(_CHUNK):
            content += piece
            if len(content) > limit:
                raise ValueError(f"more than {limit} bytes came")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done after {3 * timeout:g} seconds")
    return bytes(content)


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"the server answered {error.code} {error.reason}"
    return str(error.reason if isinstance(error, URLError) else error) or type(error).__name__
