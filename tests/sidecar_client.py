"""The sidecar asked in process."""

import warnings
from contextlib import contextmanager

from banditroute.servers.sidecar import sidecar


@contextmanager
def asking(make, **options):
    """A client of a sidecar around the Router that `make` returns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would like to have another client
        from starlette.testclient import TestClient

    with TestClient(sidecar(make, **options)) as one:
        yield one


def said(answer, status=200):
    """What an answer of that status holds."""
    assert answer.status_code == status, answer.text
    return answer.json()
