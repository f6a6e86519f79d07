"""The store: what a trace keeps in TRACE/index.lmdb, and how the journal becomes that.

    db         the LMDB environment, its tables and transactions (the only lmdb importer)
    codec      numbers, columns and compression: bytes to values, bounded and checked
    session    facts about the recording: TRACE/session.json and the totals kept in the store
    names      the tree: which node a name meant at a moment
    state      the indexer's idea of one node right now
    nodes      all nodes right now, and attributes at any moment
    walk       paths as system calls resolve them, in the recorded tree
    stamps     which node each inode of a record is
    content    blocks of extents and how bytes are read back from them
    patches    blobs by digest, raw or as a differ's patch on another
    blocks     the timeline: compressed blocks of events
    processes  marks, and processes at a moment
    calls      what calls on names and attributes do to all of these
    standing   what was found by looking, before the command and after it
    course     beginning, end, processes, marks, gaps
    timeline   numbers and times of events while indexing
    writer     writes that wait to become blocks
    replay     one record after the other to its effect
    indexer    the journal to its end: transactions, cursor, crash recovery
    check      whether a store keeps its own promises
    reader     the read side that everything else uses

Nothing here knows who wrote the journal. The store is derived from it and can be read by one
process while another indexes.
"""
