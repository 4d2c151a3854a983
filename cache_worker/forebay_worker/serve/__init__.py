"""What a worker serves: ranges over the data protocol, and the control API."""
