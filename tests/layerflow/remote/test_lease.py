"""A lease in a bucket: one holder at a time, and the next one after the first has died."""

import json
import threading

import pytest

from layerflow.errors import UnreachableError
from layerflow.remote import bucket, lease
from layerflow.remote.bucket import Bucket
from layerflow.remote.lease import Lease
from tests.object_store import Proxy

pytestmark = pytest.mark.process  # the S3 server is one: only a server can compare and swap


@pytest.fixture
def lake(endpoint: Proxy) -> Bucket:
    """An empty bucket."""
    found = bucket.in_force()
    assert found
    return found


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases end soon."""
    monkeypatch.setattr(lease, "SECONDS", 0.4)


def content_of(lake: Bucket) -> bytes:
    found = lake.get("leases/a")
    assert found
    return found.content


def test_one_holds_it_at_a_time(lake: Bucket) -> None:
    inside, most, times = 0, 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most, times
        for _ in range(3):
            with Lease(lake, "leases/a") as held:
                with guard:
                    inside, times = inside + 1, times + 1
                    most = max(most, inside)
                assert held.is_held
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, times) == (1, 12)


def test_a_lease_that_is_held_for_long_is_renewed(lake: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SECONDS", 3)
    with Lease(lake, "leases/a") as held:
        found = set()
        while len(found) < 4:
            found.add(content_of(lake))
            assert held.is_held


def test_the_lease_of_a_dead_holder_is_taken_over(lake: Bucket, short: None) -> None:
    lake.put("leases/a", json.dumps({"holder": "dead", "renewal": 7}).encode())
    with Lease(lake, "leases/a") as held:
        assert held._holder.encode() in content_of(lake)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"holder": {}}', b"[" * 100_000])
def test_what_is_no_lease_is_taken_over_too(lake: Bucket, short: None, content: bytes) -> None:
    lake.put("leases/a", content)
    with Lease(lake, "leases/a") as held:
        assert held._holder.encode() in content_of(lake)


def test_a_holder_whose_lease_was_taken_over_knows_it(lake: Bucket, short: None) -> None:
    with Lease(lake, "leases/a") as held:
        lake.put("leases/a", json.dumps({"holder": "another", "renewal": 1}).encode())
        held._renewing.join(10)
        assert not held._renewing.is_alive()
        assert not held.is_held
    assert b"another" in content_of(lake), "it is not given back by who lost it"


def test_a_renewal_whose_answer_is_lost_costs_nothing(
    lake: Bucket, endpoint: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SECONDS", 3)
    with Lease(lake, "leases/a") as held:
        endpoint.fail("lost answer", "PUT .*/leases/a", times=8)
        while endpoint.faults[0].times:  # each is tried six times
            held._renewing.join(0.01)
        held._renewing.join(1.5)
        assert held._renewing.is_alive()


def test_a_bucket_that_can_not_be_reached_is_said_at_once(lake: Bucket, endpoint: Proxy) -> None:
    endpoint.fail("503")
    with pytest.raises(UnreachableError, match="leases/a, and it answered 503"), Lease(lake, "leases/a"):
        pass
