"""The journal gives back what was appended, up to where it was torn, and never anything else."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffkeeper import journal
from diffkeeper.journal import Cursor, JournalReader, JournalWriter, segment_path, segments

spans = st.lists(st.binary(max_size=300), max_size=12)


def write(directory: Path, parts: list[bytes]) -> None:
    writer = JournalWriter(directory)
    for part in parts:
        writer.append(part)
    writer.close()


def payloads(reader: JournalReader) -> list[bytes]:
    return [payload for payload, _ in reader.frames()]


@given(spans, spans)
def test_frames_come_back_over_segments(first: list[bytes], second: list[bytes]) -> None:
    """In order, also when the journal was opened for writing twice."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "journal"
        write(directory, first)
        write(directory, second)
        assert payloads(JournalReader(directory)) == first + second


def test_segments_are_given_to_the_owner(tmp_path: Path) -> None:
    """Each new segment, too: who indexes beside a recorder under sudo is not root."""
    owner = (65534, 65533) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    writer = JournalWriter(tmp_path / "journal", owner)
    writer.rotate()
    writer.close()
    found = {(path.stat().st_uid, path.stat().st_gid) for path in [tmp_path / "journal", *tmp_path.glob("journal/*")]}
    assert found == {owner}


@given(spans, st.data())
def test_reading_goes_on_at_any_cursor(parts: list[bytes], data: st.DataObject) -> None:
    """The cursor that came with a frame is where a new reader finds the next."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "journal"
        write(directory, parts)
        cursors = [Cursor(), *(cursor for _, cursor in JournalReader(directory).frames())]
        at = data.draw(st.integers(0, len(parts)))
        assert payloads(JournalReader(directory, cursors[at])) == parts[at:]


@given(spans.filter(bool), st.data())
def test_a_torn_tail_loses_only_itself(parts: list[bytes], data: st.DataObject) -> None:
    """Cut anywhere: whole frames before the cut are there, nothing else, and writing goes on in a new segment."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "journal"
        write(directory, parts)
        segment = segment_path(directory, 1)
        size = segment.stat().st_size
        cut = data.draw(st.integers(len(journal.SEGMENT_MAGIC), size))
        ends = [cursor.offset for _, cursor in JournalReader(directory).frames()]
        with open(segment, "r+b") as file:
            file.truncate(cut)
        whole = sum(end <= cut for end in ends)
        assert payloads(JournalReader(directory)) == parts[:whole]
        write(directory, [b"after"])
        reader = JournalReader(directory)
        assert payloads(reader) == [*parts[:whole], b"after"]
        assert reader.torn == cut - max([len(journal.SEGMENT_MAGIC), *ends[:whole]])


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=5), st.data())
def test_a_flipped_bit_costs_no_more_than_what_follows(parts: list[bytes], data: st.DataObject) -> None:
    """What comes out is what went in, but for one frame or all from it on: never other bytes. The loss is counted."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "journal"
        write(directory, parts)
        segment = segment_path(directory, 1)
        content = bytearray(segment.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        segment.write_bytes(content)
        reader = JournalReader(directory)
        found = payloads(reader)
        assert found in [
            *(parts[:end] for end in range(len(parts))),
            *(parts[:at] + parts[at + 1 :] for at in range(len(parts))),
        ]
        assert reader.torn + reader.rest() > 0
        reader.pass_over()
        assert reader.torn > 0 and reader.rest() == 0


def test_a_writer_can_be_seen_at_work(tmp_path: Path) -> None:
    """While one is open, and not when it is closed or its process is dead."""
    directory = tmp_path / "journal"
    assert not journal.is_written(directory)
    writer = JournalWriter(directory)
    assert journal.is_written(directory)
    writer.rotate()
    assert journal.is_written(directory)
    writer.close()
    assert not journal.is_written(directory)


def test_a_failed_append_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that was cut short by a full disk is taken back, and what is appended later is found."""
    writer = JournalWriter(tmp_path / "journal")
    writer.append(b"one")

    def full(fd: int, _pieces: object) -> int:
        os.write(fd, b"DKFR half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", full)
        with pytest.raises(OSError, match="No space"):
            writer.append(b"two")
    writer.append(b"three")
    writer.close()
    reader = JournalReader(tmp_path / "journal")
    assert payloads(reader) == [b"one", b"three"]
    assert reader.torn == reader.rest() == 0


def test_a_segment_that_cannot_be_made(tmp_path: Path) -> None:
    """The writer goes on in the one that it has, and none of its descriptors is somebody else's by then."""
    writer = JournalWriter(tmp_path)
    writer.append(b"before")
    segment_path(tmp_path, 2).mkdir()
    with pytest.raises(OSError, match="exists"):
        writer.rotate()
    with open(tmp_path / "other", "wb") as other:  # gets the number of what was closed last
        writer.append(b"after")
        writer.close()
        assert os.fstat(other.fileno()).st_size == 0
    segment_path(tmp_path, 2).rmdir()
    assert payloads(JournalReader(tmp_path)) == [b"before", b"after"]


def test_a_missing_segment_is_counted(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "journal")
    for part in (b"one", b"two", b"three"):
        writer.append(part)
        writer.rotate()
    writer.close()
    segment_path(tmp_path / "journal", 2).unlink()
    reader = JournalReader(tmp_path / "journal")
    assert payloads(reader) == [b"one", b"three"]
    assert reader.missing == 1


def test_a_reader_follows_a_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`frames` can be called again and again while segments grow, fill up and follow on each other."""
    monkeypatch.setattr(journal, "SEGMENT_LIMIT", 100)
    reader = JournalReader(tmp_path / "journal")
    assert payloads(reader) == []
    writer = JournalWriter(tmp_path / "journal")
    for number in range(20):
        writer.append(b"%d" % number * 10)
        assert payloads(reader) == [b"%d" % number * 10]
    writer.close()
    assert len(segments(tmp_path / "journal")) > 3
    assert payloads(reader) == []
    assert writer.bytes_written == sum(len(b"%d" % number * 10) for number in range(20))


def test_what_is_no_segment(tmp_path: Path) -> None:
    """Other files are passed over; segments with another beginning, links and pipes too, but those are counted."""
    write(tmp_path / "journal", [b"x"])
    (tmp_path / "journal" / "notes.txt").write_text("hello")
    assert payloads(JournalReader(tmp_path / "journal")) == [b"x"]
    segment = segment_path(tmp_path / "journal", 1)
    segment.write_bytes(b"NOTDKJRNL")
    write(tmp_path / "journal", [b"y"])
    reader = JournalReader(tmp_path / "journal")
    assert payloads(reader) == [b"y"]
    assert reader.torn == 1
    segment.unlink()
    os.mkfifo(segment)
    assert payloads(JournalReader(tmp_path / "journal")) == [b"y"]
    segment.unlink()
    segment.symlink_to("/etc/passwd")
    reader = JournalReader(tmp_path / "journal")
    assert payloads(reader) == [b"y"]
    assert reader.torn > 0


def test_segments_are_private(tmp_path: Path) -> None:
    write(tmp_path / "journal", [b"x"])
    assert segment_path(tmp_path / "journal", 1).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o700
