"""The checks of the coordinator's scenarios find what is broken. No server is needed."""

import json
import sys
import tempfile
import unittest

from coordinator import differences, invariants, normalise, objects, standby
from coordinator.metastore import DROPPED, FLUSHED, GROWING, INDEX_FINISHED, META, Metastore
from descriptors import Messages, compile_protos
from history import Event
from settings import with_settings

SEGMENT = f"{META}datacoord-meta/s/10/20/30"
CHECKPOINT = f"{META}datacoord-meta/channel-cp/dml_0_10v0"


class Checks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.NamedTemporaryFile() as file:
            compile_protos(file.name)
            cls.messages = Messages(file.name)

    def segment(self, number=30, **fields):
        info = self.messages["data.SegmentInfo"](
            ID=number, collectionID=10, partitionID=20, insert_channel="dml_0_10v0", **fields)
        return info.SerializeToString()

    def history(self, *events):
        """The violations in a history: keys and values, each at a revision of its own."""
        numbered = [Event(revision, key, value) for revision, (key, value) in enumerate(events, 1)]
        return [text.split(":")[0] for text in invariants.of_history(self.messages, numbered)]

    def store(self, rows):
        return Metastore(self.messages, rows)

    def test_a_dropped_segment_stays_dropped(self):
        growing, flushed, dropped = (
            self.segment(state=state) for state in (GROWING, FLUSHED, DROPPED))
        life = [(SEGMENT, growing), (SEGMENT, flushed), (SEGMENT, dropped), (SEGMENT, None)]
        self.assertEqual(self.history(*life), [])
        self.assertEqual(self.history(*life[:3], (SEGMENT, flushed)), ["5"])
        self.assertEqual(self.history(*life, (SEGMENT, growing)), ["5", "5"])
        self.assertEqual(self.history(life[0], life[1], life[0]), ["5"])
        self.assertEqual(self.history(life[0], (SEGMENT, None)), ["5"])

    def test_a_checkpoint_never_goes_back(self):
        early, late = (self.messages["msg.MsgPosition"](timestamp=time).SerializeToString()
                       for time in (5, 6))
        self.assertEqual(self.history((CHECKPOINT, early), (CHECKPOINT, late)), [])
        self.assertEqual(self.history((CHECKPOINT, late), (CHECKPOINT, early)), ["4"])

    def test_a_channel_has_one_key_at_every_revision(self):
        first, second = (f"{META}channelwatch/{node}/dml_0_10v0" for node in (1, 2))
        self.assertEqual(self.history((first, b""), (first, None), (second, b"")), [])
        self.assertEqual(self.history((first, b""), (second, b"")), ["3"])
        moved = [Event(1, first, b""), Event(2, second, b""), Event(2, first, None)]
        self.assertEqual(list(invariants.of_history(self.messages, moved)), [])

    def test_files_and_records_name_each_other(self):
        log = self.messages["data.FieldBinlog"](
            fieldID=100, binlogs=[{"entries_num": 7, "logID": 40}]).SerializeToString()
        store = self.store({SEGMENT: self.segment(state=FLUSHED, num_of_rows=7),
                            f"{META}datacoord-meta/binlog/10/20/30/100": log})
        path = "insert_log/10/20/30/100/40"
        self.assertEqual(objects.named(store, store.segments.values()), {path})
        self.assertEqual(store.segments[30].rows_in_logs(), 7)
        self.assertEqual(self.moment(store, [path]), [])
        self.assertEqual(self.moment(store, []), ["2"])
        self.assertEqual(self.moment(store, [path, "insert_log/1/2/3/100/4"]), ["2"])

    def moment(self, store, files):
        return [text.split(":")[0]
                for text in invariants.of_moment(store, dict.fromkeys(files, 1), collected=True)]

    def test_a_compaction_invents_no_rows_and_leaves_no_input(self):
        def result(**fields):
            return self.store({
                SEGMENT: self.segment(num_of_rows=5, **fields),
                f"{META}datacoord-meta/s/10/20/31": self.segment(
                    31, num_of_rows=rows, state=FLUSHED, createdByCompaction=True,
                    compactionFrom=[30])})
        rows = 5
        self.assertEqual(self.moment(result(state=DROPPED, compacted=True), []), [])
        self.assertEqual(self.moment(result(state=FLUSHED), []), ["6"])
        rows = 6
        self.assertEqual(self.moment(result(state=DROPPED, compacted=True), []), ["6"])

    def test_a_finished_index_has_its_files(self):
        index = self.messages["index.SegmentIndex"](
            collectionID=10, partitionID=20, segmentID=30, buildID=50, index_version=2,
            num_rows=5_000, state=INDEX_FINISHED, index_file_keys=["slice"]).SerializeToString()
        store = self.store({SEGMENT: self.segment(state=FLUSHED),
                            f"{META}segment-index/10/20/30/50": index})
        self.assertEqual(self.moment(store, ["index_files/50/2/20/30/slice"]), [])
        self.assertEqual(self.moment(store, ["index_files/50/1/20/30/slice"]), ["2", "2", "7"])

    def test_a_stranger_as_datacoord_is_noticed(self):
        def session(address):
            value = json.dumps({"Address": address, "ServerID": 1})
            return Event(1, standby.SESSION, value.encode())
        ours = session("127.0.0.1:2382")
        self.assertEqual(standby.check([ours, ours], {"127.0.0.1:2382"}), 1)
        for broken in ([], [session("127.0.0.1:13333")], [ours, Event(2, standby.SESSION, None)]):
            with self.assertRaises(AssertionError):
                standby.check(broken, {"127.0.0.1:2382"})

    def test_equal_metastores_differ_in_ids_and_times_only(self):
        def lines(number, time, **fields):
            key = f"{META}datacoord-meta/s/10/20/{number}"
            store = self.store({key: self.segment(number, last_expire_time=time, **fields)})
            return normalise.lines(self.messages, [], store)
        stock = lines(30, 7, num_of_rows=1)
        self.assertEqual(list(normalise.compare(stock, lines(33, 8, num_of_rows=1))), [])
        different = list(normalise.compare(stock, lines(33, 8, num_of_rows=2)))
        self.assertEqual(len(different), 1)
        self.assertEqual(differences.sort_out(different), ({}, different))

    def test_logs_are_compared_by_their_sums(self):
        def lines(*sizes):
            logs = self.messages["data.FieldBinlog"](fieldID=100, binlogs=[
                {"entries_num": size, "log_size": size, "logID": 40 + size} for size in sizes])
            store = self.store({SEGMENT: self.segment(),
                                f"{META}datacoord-meta/binlog/10/20/30/100":
                                    logs.SerializeToString()})
            return normalise.lines(self.messages, [], store)
        self.assertEqual(list(normalise.compare(lines(3, 4), lines(7))), [])
        self.assertEqual(len(list(normalise.compare(lines(3, 4), lines(8)))), 2)

    def test_settings_are_changed_in_place_or_added(self):
        text = "dataCoord:\n  gc:\n    interval: 3600 # seconds\n  port: 1\n"
        changed = with_settings(text, {"dataCoord.gc.interval": 5, "dataCoord.new.one": 1,
                                       "common.on": True})
        self.assertEqual(changed, "dataCoord:\n  new:\n    one: 1\n  gc:\n"
                         "    interval: 5 # seconds\n  port: 1\ncommon:\n  on: true\n")


if __name__ == "__main__":
    sys.exit(unittest.main())
