"""Crash safety, tried out: recorders, indexers and mounts killed, disks filled, while a known story is recorded."""
