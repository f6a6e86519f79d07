"""The view: what a trace looks like, as paths in Python and as a mounted filesystem.

    moments    how a moment is written and printed
    roots      where the recorded roots stand in a moment
    paths      a moment's tree in the manner of pathlib
    tree       what a mount is made of: places, and the inodes by which a kernel knows them
    recorded   places that were recorded, at a moment
    history    places for the versions of a file
    hidden     the mount's top, and .diffkeeper in it
    fuse       requests of a kernel to places (the only importer of pyfuse3 and trio)
    mount      checks, the process that serves, and its end

All but the last two know nothing of FUSE; `fuse` knows nothing of traces.
"""
