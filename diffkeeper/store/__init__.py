"""The store: what a trace keeps in TRACE/index.lmdb, and how the journal becomes that.

    db         the LMDB environment, its tables and transactions (the only lmdb importer)
    codec      numbers, columns and compression: bytes to values, bounded and checked
    session    facts about the recording: TRACE/session.json and the totals kept in the store
    names      the tree: which node a name meant at a moment
    nodes      the indexer's idea of each node right now, and attributes at any moment
    walk       paths as system calls resolve them, in the recorded tree
    stamps     which node each inode of a record is
    content    blocks of extents and how bytes are read back from them
    patches    blobs by digest, raw or as a differ's patch on another
    blocks     the timeline: compressed blocks of events
    processes  marks, and processes at a moment
    replay     one record to its effect on all of these
    indexer    the journal to its end: transactions, cursor, crash recovery
    reader     the read side that everything else uses

Nothing here knows who wrote the journal. The store is derived from it and can be read by one
process while another indexes.
"""
