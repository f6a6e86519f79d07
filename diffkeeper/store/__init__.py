"""The store: what a trace keeps in TRACE/index.lmdb, and how the journal becomes that.

    files      what the files of an index must be, and how a copy takes their place
    pages      whether the pages of an index can be handed to LMDB; sound: which were so before
    db         the LMDB environment and its transactions (the only lmdb importer); tables: which there are
    codec      numbers, columns and compression: bytes to values, bounded and checked
    session    facts about the recording: TRACE/session.json and the totals kept in the store
    names      the tree: which node a name meant at a moment
    state      the indexer's idea of one node right now
    nodes      all nodes right now; xattrs: the extended attributes
    listing    attributes and directories at any moment, remembered for as long as they hold
    walk       paths as system calls resolve them, in the recorded tree; apart: with mounts of one's own
    stamps     which node each inode of a record is
    content    blocks of extents; assembly: the bytes put together from them; layers: what covers what
    patches    blobs by digest, raw or as a differ's patch on another; differing: which differ, and when
    blocks     the timeline: compressed blocks of events
    processes  marks, and processes at a moment
    targets    which nodes and places a record points at
    calls      what calls on names do to all of these; attributes: calls on attributes; data: calls on data
    acl        POSIX ACLs
    standing   what was found by looking, before the command and after it
    earlier    content from the recording that this one replaced
    course     beginning, end, processes, marks, gaps
    timeline   numbers and times of events while indexing
    writer     writes that wait to become blocks; runs: many plain writes at once
    replay     one record after the other to its effect
    indexer    the journal to its end: transactions, cursor, crash recovery
    check      whether a store keeps its own promises
    repack     patches made anew
    reader     the read side that everything else uses

Nothing here knows who wrote the journal. The store is derived from it and can be read by one
process while another indexes.
"""
