"""The decisions of a worker as pure state machines: events in, instructions out, no input or output."""
