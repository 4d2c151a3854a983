"""Addresses and names of a cluster."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from testkit.settings import Settings, from_environment


def test_ranges_of_one_cluster_do_not_overlap() -> None:
    """Nodes, Services and pods share a /16 and never an address."""
    s = Settings()
    ranges = [s.node_subnet, s.service_cidr, s.pod_cidr]

    assert not any(a.overlaps(b) for a in ranges for b in ranges if a is not b)
    assert all(one.subnet_of(s.network) for one in ranges)


def test_every_node_has_an_address_and_a_pod_range_of_its_own() -> None:
    """The hundredth node still lies in the ranges, and none takes the host's or the store's address."""
    s = Settings()
    addresses = {s.node_address(n) for n in range(1, 101)}
    pods = {s.node_pod_cidr(n) for n in range(1, 101)}

    assert len(addresses) == len(pods) == 100
    assert all(address in s.node_subnet for address in addresses)
    assert all(cidr.subnet_of(s.pod_cidr) for cidr in pods)
    assert not addresses & {s.bridge_address, s.store_address}


@pytest.mark.parametrize("index", [0, -1, 101])
def test_a_node_number_without_an_address_is_refused(index: int) -> None:
    """Numbers begin at 1 and end at 100."""
    with pytest.raises(ValueError, match="between 1 and 100"):
        Settings().node_address(index)


def test_a_second_cluster_shares_nothing_with_the_first() -> None:
    """Another name gives other folders and interfaces; the network is the caller's to choose."""
    first = from_environment({})
    second = from_environment({"FOREBAY_TESTKIT_NAME": "proofs", "FOREBAY_TESTKIT_NETWORK": "10.77.0.0/16"})

    assert second.network == IPv4Network("10.77.0.0/16")
    assert second.bridge_address == IPv4Address("10.77.0.1")
    assert {first.bridge, first.state_dir, first.data_dir}.isdisjoint(
        {second.bridge, second.state_dir, second.data_dir}
    )


def test_every_interface_name_fits_the_kernel() -> None:
    """Fifteen characters at most, also for a long name and the store's cable."""
    s = from_environment({"FOREBAY_TESTKIT_NAME": "a-very-long-name"})

    assert len(f"{s.prefix}1000") <= 15


@pytest.mark.parametrize(
    "environment",
    [
        {"FOREBAY_TESTKIT_NAME": "a/b"},
        {"FOREBAY_TESTKIT_NAME": "two2"},
        {"FOREBAY_TESTKIT_NAME": ""},
        {"FOREBAY_TESTKIT_NETWORK": "10.77.0.0/24"},
    ],
)
def test_names_and_networks_that_cannot_work_are_refused(environment: dict[str, str]) -> None:
    """Names become folders and the begin of interface names; a network must be a /16."""
    with pytest.raises(ValueError, match="FOREBAY_TESTKIT"):
        from_environment(environment)
