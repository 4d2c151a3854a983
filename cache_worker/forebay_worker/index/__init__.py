"""The dataset's listing: built from the sources, kept, refreshed, handed to others."""
