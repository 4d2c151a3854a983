"""Replay of access traces against eviction policies: why the cache evicts as it does (see docs/adr)."""
