"""What one Forebay process promises another: messages, names, placement, errors.

Standard library only and no I/O, so that every other package can depend on it.
"""
