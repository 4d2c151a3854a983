"""Pure decisions: from what was observed to a plan. No I/O and no clock; both arrive as arguments."""
