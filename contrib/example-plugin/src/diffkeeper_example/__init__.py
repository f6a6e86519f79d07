"""Plugins for DiffKeeper: the differ affix, the filter depth, the exporter sha256."""
