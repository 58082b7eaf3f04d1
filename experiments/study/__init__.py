"""A study: its config, data, networks, training step, sweep and measurements."""
