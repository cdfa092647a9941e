"""What always holds of DataCoord's records, whoever writes them: the nine invariants.

1. The row count that clients see is the sum over healthy segments, and what was inserted.
2. Every file that a record names exists; once garbage is collected, every file is named.
3. A vchannel has exactly one `channelwatch` key.
4. The checkpoint of a channel never goes back.
5. No segment leaves Dropped; no segment id is used again.
6. A compaction's result has at most the rows of its inputs, which are Dropped and compacted.
7. The files of a finished segment index lie under the version on record.
8. The recovery information never names a result of a compaction together with one of its inputs.
9. What a finished flush covered is in the logs of segments on record.

4, 5 and the past of 3 are read from the history of the keys, the rest from one quiet moment.
"""

from dataclasses import dataclass

from coordinator import metastore, objects
from coordinator.metastore import (
    DROPPED, FLUSHED, FLUSHING, GROWING, IMPORTING, INDEX_FINISHED, SEALED,
)

# A flush is done when a segment is in one of these.
DONE = (FLUSHED, FLUSHING, DROPPED)
SMALL_ROWS = 1024


@dataclass(frozen=True)
class Rows:
    """What a collection must have. Deleted rows count until a compaction leaves them out."""

    at_least: int
    at_most: int

    @staticmethod
    def exactly(count):
        return Rows(count, count)


def check_all(stage, rows, collected=False):
    """Both parts now. `rows`: what each collection must hold, by name. All of them are flushed."""
    store = stage.metastore()
    violations = [*of_history(stage.messages, stage.history.events()),
                  *of_moment(store, objects.listed(stage.milvus.objects), collected)]
    for name, wanted in rows.items():
        violations += of_collection(stage, store, name, wanted)
    assert not violations, "\n".join(["invariants are broken:", *violations[:40]])
    healthy = sum(segment.healthy for segment in store.segments.values())
    stage.say(f"all nine invariants hold: {len(store.segments)} segments on record,"
              f" {healthy} healthy")


def of_history(messages, events):
    """3, 4 and 5 over everything that ever was."""
    states, gone, checkpoints, watches = {}, set(), {}, {}
    at_revision = 0
    for event in [*events, None]:
        if event is None or event.revision != at_revision:
            # All events of a revision happened at once.
            for channel, keys in watches.items():
                if len(keys) > 1:
                    yield f"3: at revision {at_revision} {channel} has {sorted(keys)}"
        if event is None:
            return
        at_revision = event.revision
        key = event.key.removeprefix(metastore.META)
        if key.startswith("channelwatch/"):
            keys = watches.setdefault(key.rpartition("/")[2], set())
            if event.value is None:
                keys.discard(key)
            else:
                keys.add(key)
        elif key.startswith("datacoord-meta/channel-cp/"):
            if event.value is None:
                checkpoints.pop(key, None)
                continue
            time = messages.decode("msg.MsgPosition", event.value).timestamp
            if time < checkpoints.get(key, 0):
                yield f"4: {key} went back from {checkpoints[key]} to {time} at {at_revision}"
            checkpoints[key] = time
        elif key.startswith("datacoord-meta/s/"):
            yield from of_segment_event(messages, states, gone, key, event)


def of_segment_event(messages, states, gone, key, event):
    number = int(key.split("/")[4])
    if event.value is None:
        if states.get(number) != DROPPED:
            yield f"5: segment {number} was removed in state {states.get(number)}"
        gone.add(number)
        return
    info = messages.decode("data.SegmentInfo", event.value)
    if number in gone:
        yield f"5: the id of segment {number} was used again at revision {event.revision}"
    before = states.get(number)
    if before == DROPPED and info.state != DROPPED:
        yield f"5: segment {number} left Dropped for {info.state} at revision {event.revision}"
    if before in (FLUSHED, FLUSHING) and info.state in (GROWING, SEALED, IMPORTING):
        yield f"5: segment {number} went from {before} to {info.state} at revision {event.revision}"
    states[number] = info.state


def of_moment(store, files, collected):
    """2, 3, 6 and 7 of one metastore and the files that were listed after it."""
    healthy = [segment for segment in store.segments.values() if segment.healthy]
    for path in sorted(objects.named(store, healthy) - files.keys()):
        yield f"2: no file {path}"
    if collected:
        for path in sorted(files.keys() - objects.named(store, store.segments.values())):
            yield f"2: nothing names the file {path}"
    for key in store.homeless:
        yield f"2: no segment for {key}"
    watched = [channel for _, channel in store.watches()]
    for record in store.collections.values():
        for channel in record.virtual_channel_names if record.state == 0 else ():
            if watched.count(channel) != 1:
                yield f"3: {channel} has {watched.count(channel)} keys"
    for segment in store.segments.values():
        yield from of_compaction(store, segment)
    for index in store.segment_indexes:
        segment = store.segments.get(index.segmentID)
        if index.state != INDEX_FINISHED or index.deleted or segment is None or not segment.healthy:
            continue
        if index.num_rows >= SMALL_ROWS and not index.index_file_keys and not is_flat(store, index):
            yield f"7: the finished index {index.buildID} has no files"
        for path in objects.index_paths(index):
            if path not in files:
                yield f"7: no file {path}"


def is_flat(store, index):
    definition = store.indexes.get(index.indexID)
    return definition is not None and any(
        pair.key == "index_type" and pair.value in ("FLAT", "BIN_FLAT")
        for pair in definition.index_info.index_params)


def of_compaction(store, result):
    inputs = [store.segments.get(number) for number in result.info.compactionFrom]
    for number, segment in zip(result.info.compactionFrom, inputs):
        if segment and not (segment.info.state == DROPPED and segment.info.compacted):
            yield f"6: {number} is an input of {result.info.ID} and in state {segment.info.state}"
    # Garbage collection may have taken some of them.
    if inputs and all(inputs):
        before = sum(segment.info.num_of_rows for segment in inputs)
        if result.info.num_of_rows > before:
            yield f"6: {result.info.ID} has {result.info.num_of_rows} rows, its inputs {before}"


def of_collection(stage, store, name, wanted):
    """1, 8 and 9 of one collection whose last flush is done."""
    collection = store.collection(name)
    segments = store.segments_of(collection)
    healthy = [segment for segment in segments if segment.healthy]
    total = sum(segment.info.num_of_rows for segment in healthy)
    if not wanted.at_least <= total <= wanted.at_most:
        yield f"1: the segments of {name} have {total} rows, wanted {wanted}"
    answer = stage.call("GetCollectionStatistics", "data.GetCollectionStatisticsRequest",
                        "data.GetCollectionStatisticsResponse", collectionID=collection)
    told = [pair.value for pair in answer.stats if pair.key == "row_count"]
    if told != [str(total)]:
        yield f"1: clients are told {told} rows of {name}, its segments have {total}"
    for segment in healthy:
        info = segment.info
        if info.state not in DONE and info.num_of_rows:
            yield f"9: {info.ID} of {name} is in state {info.state} after the flush"
        if info.state in (FLUSHED, FLUSHING) and segment.rows_in_logs() != info.num_of_rows:
            yield f"9: {info.ID} has {info.num_of_rows} rows, its logs {segment.rows_in_logs()}"
    yield from of_recovery(stage, store, collection, segments)


def of_recovery(stage, store, collection, segments):
    answer = stage.call("GetRecoveryInfoV2", "data.GetRecoveryInfoRequestV2",
                        "data.GetRecoveryInfoResponseV2", collectionID=collection)
    if answer.status.code or answer.status.error_code:
        yield f"8: no recovery information: {answer.status}"
        return
    channels = set(store.collections[collection].virtual_channel_names)
    if {channel.channelName for channel in answer.channels} != channels:
        yield f"8: recovery names {[channel.channelName for channel in answer.channels]}"
    flushed = {number for channel in answer.channels for number in channel.flushedSegmentIds}
    for segment in segments:
        both = flushed.intersection(segment.info.compactionFrom)
        if segment.info.ID in flushed and both:
            yield f"8: recovery names {segment.info.ID} and its inputs {sorted(both)}"
