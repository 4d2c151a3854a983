"""The caches, the comparison of objects, the queue: what keeps a settled cluster quiet."""

import asyncio
from typing import Any

import pytest

from forebay_operator.kube import credentials, errors
from forebay_operator.kube.cache import Cache
from forebay_operator.kube.difference import contains, stamped
from forebay_operator.model import quantity
from forebay_operator.queue import Key, KeyQueue


def pod(version: int, uid: str = "u", claim: str = "data") -> dict[str, Any]:
    """A user's pod that mounts a claim."""
    return {
        "metadata": {"name": "p", "namespace": "ns", "uid": uid, "resourceVersion": str(version)},
        "spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}, {"name": "w"}]},
        "status": {"phase": "Running"},
    }


def test_newer_object_wins() -> None:
    """A late event about the past changes nothing."""
    cache = Cache()
    cache.put("Pod", pod(10, claim="new"))
    cache.put("Pod", pod(9, claim="old"))

    assert len(cache.tagged("Pod", "ns", "claim:new")) == 1
    assert cache.tagged("Pod", "ns", "claim:old") == []


def test_deleted_object_does_not_come_back() -> None:
    """The answer to a write that overtook the deletion is ignored; a new object of the name is not."""
    cache = Cache()
    cache.put("Pod", pod(1))
    cache.drop("Pod", pod(2))
    cache.put("Pod", pod(3))
    assert cache.get("Pod", "ns", "p") is None

    cache.put("Pod", pod(4, uid="other"))
    cache.drop("Pod", pod(2))
    assert cache.get("Pod", "ns", "p") is not None


def test_secrets_of_others_are_not_kept() -> None:
    """Only that they change is remembered."""
    cache = Cache()
    metadata = {"name": "s", "namespace": "ns", "uid": "u", "resourceVersion": "1"}
    cache.put("Secret", {"metadata": metadata, "data": {"password": "c2VjcmV0"}})

    assert cache.get("Secret", "ns", "s") == {"metadata": metadata}


def test_pods_that_do_not_concern_us_are_not_kept() -> None:
    """A cluster has many pods."""
    cache = Cache()
    cache.put("Pod", {**pod(1), "spec": {"volumes": []}})

    assert cache.get("Pod", "ns", "p") is None


@pytest.mark.parametrize(
    ("live", "wanted", "same"),
    [
        ({"a": 1, "default": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({}, {"a": 1}, False),
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1073741824"}}, True),
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1G"}}, False),
        ({"list": [{"a": 1, "b": 2}]}, {"list": [{"a": 1}]}, True),
        ({"list": [{"a": 1}, {"a": 2}]}, {"list": [{"a": 1}]}, False),
        ({}, {"emptyDir": {}}, True),
        ({"emptyDir": {}}, {"emptyDir": {}}, True),
        ({}, {"storageClassName": ""}, True),
    ],
)
def test_defaults_are_no_difference(live: Any, wanted: Any, same: bool) -> None:
    """What the API server adds or writes in its own way is not ours to correct."""
    assert contains(live, wanted) is same


def test_a_field_that_is_not_wanted_any_more_is_a_difference() -> None:
    """The live object has all that is wanted and something of ours besides: the fingerprint tells."""
    before = stamped({"metadata": {"name": "n"}, "spec": {"a": 1, "b": 2}})
    after = stamped({"metadata": {"name": "n"}, "spec": {"a": 1}})

    assert contains(before, before)
    assert not contains(before, after)


def test_queue_coalesces() -> None:
    """Ten changes are one look; a change during the look is another one."""

    async def scenario() -> list[str]:
        queue, key, seen = KeyQueue(), Key("Dataset", "ns", "d"), []
        for _ in range(10):
            queue.add(key)
        taken = await queue.take()
        queue.add(key)
        seen.append(taken.name)
        queue.done(taken)
        seen.append((await queue.take()).name)
        queue.done(taken)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.take(), 0.01)
        return seen

    assert asyncio.run(scenario()) == ["d", "d"]


def test_queue_keeps_the_earlier_time() -> None:
    """A later wish does not put off an earlier one."""

    async def scenario() -> None:
        queue, key = KeyQueue(), Key("Dataset", "ns", "d")
        queue.add_later(key, 0.01)
        queue.add_later(key, 100)
        await asyncio.wait_for(queue.take(), 5)

    asyncio.run(scenario())


def test_credentials_in_both_spellings() -> None:
    """Kubernetes style and the environment variables' names; values never appear in an error."""
    plain = credentials.parse({"accessKeyId": "YQ==", "secretAccessKey": "Yg=="})
    aws = credentials.parse({"AWS_ACCESS_KEY_ID": "YQ==", "AWS_SECRET_ACCESS_KEY": "Yg==", "AWS_SESSION_TOKEN": "Yw=="})

    assert (plain.access_key_id, plain.secret_access_key, plain.session_token) == ("a", "b", "")
    assert aws.session_token == "c"
    with pytest.raises(ValueError, match="has no key secretAccessKey"):
        credentials.parse({"accessKeyId": "YQ=="})
    with pytest.raises(ValueError, match="not text") as caught:
        credentials.parse({"accessKeyId": "//8=", "secretAccessKey": "Yg=="})
    assert "//8" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"), [("64Mi", 64 << 20), ("1.5G", 1_500_000_000), ("12", 12), ("2e3", 2000), ("100m", 0)]
)
def test_quantities(text: str, size: int) -> None:
    """Binary, decimal and exponent notation."""
    assert quantity.to_bytes(text) == size


def test_sizes_for_people() -> None:
    """Three digits and a unit."""
    assert [quantity.human(n) for n in (0, 1023, 1536, 600 << 20, 1 << 50)] == [
        "0B",
        "1023B",
        "1.5KiB",
        "600MiB",
        "1.0PiB",
    ]
    assert [quantity.human_seconds(n) for n in (5, 65, 3700)] == ["5s", "1m05s", "1h01m"]


def test_answers_become_errors() -> None:
    """A namespace that ends is told apart from what is forbidden; a proxy's page is kept as text."""
    ending = b'{"reason": "Forbidden", "message": "m", "details": {"causes": [{"reason": "NamespaceTerminating"}]}}'

    assert isinstance(errors.from_response(403, ending), errors.NamespaceEnding)
    assert isinstance(errors.from_response(422, b'{"reason": "Invalid", "message": "m"}'), errors.Refused)
    assert isinstance(errors.from_response(404, b"{}"), errors.NotFound)
    assert errors.from_response(502, b"<html>bad gateway").message == "<html>bad gateway"
