"""Built-in plugins of DiffKeeper."""
