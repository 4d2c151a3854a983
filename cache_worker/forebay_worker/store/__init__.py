"""Where chunks are kept: sparse files and a catalogue per tier, and the store over all tiers."""
