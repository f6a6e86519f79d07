"""The depth filter."""

from diffkeeper.errors import PluginError
from diffkeeper.plugins import EventFilter


class DepthFilter(EventFilter):
    """Leaves out what lies in more than `most` directories below a root."""

    def __init__(self, most: int) -> None:
        if most < 0:
            raise PluginError(f"the filter 'depth' needs most=0 or more, not {most}")
        self._most = most

    def keep_path(self, path: bytes, is_dir: bool) -> bool:
        return path.startswith(b"/") or path.count(b"/") <= self._most
