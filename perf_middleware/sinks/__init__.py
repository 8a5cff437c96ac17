"""Where finished profiles go; a sink is any callable that takes a `Profile`."""
