"""The Python client `etcd3` against the nodes of QUORATE_ENDPOINTS."""

import io
import os
import threading
import unittest

import etcd3

ENDPOINTS = [endpoint.rsplit(":", 1) for endpoint in os.environ["QUORATE_ENDPOINTS"].split(",")]
PATIENCE_S = 15


def connect(node=0):
    host, port = ENDPOINTS[node]
    return etcd3.client(host=host, port=int(port), timeout=PATIENCE_S)


class Keys(unittest.TestCase):
    def setUp(self):
        self.client = connect()
        for _, meta in self.client.get_all(keys_only=True):
            self.client.delete(meta.key)

    def test_a_key_carries_its_history(self):
        self.client.put("k", "one")
        self.client.put("k", b"two")
        value, meta = self.client.get("k")
        self.assertEqual(value, b"two")
        self.assertEqual((meta.key, meta.version, meta.lease_id), (b"k", 2, 0))
        self.assertLess(meta.create_revision, meta.mod_revision)
        self.assertEqual(self.client.get("missing"), (None, None))

    def test_every_node_reads_what_any_node_wrote(self):
        for writer in range(len(ENDPOINTS)):
            connect(writer).put(f"written/{writer}", str(writer))
            for reader in range(len(ENDPOINTS)):
                value, _ = connect(reader).get(f"written/{writer}")
                self.assertEqual(value, str(writer).encode())

    def test_ranges_are_sorted_as_asked(self):
        for key, value in (("a", "3"), ("b", "1"), ("c", "2")):
            self.client.put(key, value)
        self.client.put("a", "3")
        values = [value for value, _ in self.client.get_all(sort_order="descend", sort_target="value")]
        self.assertEqual(values, [b"3", b"2", b"1"])
        keys = [meta.key for _, meta in self.client.get_range("a", "c")]
        self.assertEqual(keys, [b"a", b"b"])
        versions = [meta.version for _, meta in
                    self.client.get_all(sort_order="ascend", sort_target="version")]
        self.assertEqual(versions, [1, 1, 2])
        only = self.client.get_all_response(keys_only=True)
        self.assertEqual([kv.value for kv in only.kvs], [b"", b"", b""])

    def test_deletes_say_what_they_deleted(self):
        self.client.put("x/1", "a")
        self.client.put("x/2", "b")
        self.assertTrue(self.client.delete("x/1"))
        self.assertFalse(self.client.delete("x/1"))
        self.assertEqual(self.client.delete_prefix("x/").deleted, 1)

    def test_transactions_take_one_branch(self):
        put, delete = self.client.transactions.put, self.client.transactions.delete
        get = self.client.transactions.get
        version, value = self.client.transactions.version, self.client.transactions.value
        succeeded, _ = self.client.transaction(
            compare=[version("t") == 0], success=[put("t", "1")], failure=[])
        self.assertTrue(succeeded)
        succeeded, answers = self.client.transaction(
            compare=[value("t") == "1", version("t") > 5],
            success=[put("t", "2")], failure=[get("t"), delete("t")])
        self.assertFalse(succeeded)
        self.assertEqual(answers[0][0][0], b"1")
        self.assertEqual(self.client.get("t"), (None, None))
        self.assertTrue(self.client.put_if_not_exists("t", "3"))
        self.assertFalse(self.client.put_if_not_exists("t", "4"))
        self.assertTrue(self.client.replace("t", "3", "5"))
        self.assertFalse(self.client.replace("t", "3", "6"))

    def test_nested_transactions_run_inside(self):
        inner = self.client.transactions.txn(
            compare=[self.client.transactions.version("never") == 0],
            success=[self.client.transactions.put("inner", "1")], failure=[])
        succeeded, answers = self.client.transaction(compare=[], success=[inner], failure=[])
        self.assertTrue(succeeded)
        self.assertTrue(answers[0].response_txn.succeeded)
        self.assertEqual(self.client.get("inner")[0], b"1")

    def test_compaction_takes_old_revisions(self):
        first = self.client.put("c", "1").header.revision
        last = self.client.put("c", "2").header.revision
        self.client.compact(last)
        with self.assertRaises(Exception) as raised:
            list(self.client.watch_response("c", start_revision=first)[0])
        self.assertIsInstance(raised.exception, etcd3.exceptions.RevisionCompactedError)


class Watches(unittest.TestCase):
    def setUp(self):
        self.client = connect()
        for _, meta in self.client.get_all(keys_only=True):
            self.client.delete(meta.key)

    def test_events_arrive_in_order_from_any_node(self):
        start = self.client.put("w/start", "").header.revision + 1
        for node in range(len(ENDPOINTS)):
            events, cancel = connect(node).watch_prefix("w/", start_revision=start)
            if node == 0:
                for number in range(20):
                    self.client.put(f"w/{number}", str(number))
                self.client.delete("w/7")
            stop = threading.Timer(PATIENCE_S, cancel)
            stop.start()
            seen = [next(events) for _ in range(21)]
            stop.cancel()
            cancel()
            self.assertEqual([event.key for event in seen[:20]],
                             [f"w/{number}".encode() for number in range(20)])
            self.assertIsInstance(seen[20], etcd3.events.DeleteEvent)
            revisions = [event.mod_revision for event in seen]
            self.assertEqual(revisions, sorted(revisions))

    def test_events_carry_previous_values(self):
        start = self.client.put("f", "1").header.revision + 1
        self.client.put("f", "2")
        self.client.delete("f")
        events, cancel = self.client.watch("f", start_revision=start, prev_kv=True)
        event = next(events)
        self.assertEqual(event.prev_value, b"1")
        event = next(events)
        self.assertIsInstance(event, etcd3.events.DeleteEvent)
        self.assertEqual(event.prev_value, b"2")
        cancel()


class Leases(unittest.TestCase):
    def setUp(self):
        self.client = connect()

    def test_a_lease_holds_keys_until_it_is_revoked(self):
        lease = self.client.lease(60, lease_id=4711)
        self.assertEqual((lease.id, lease.granted_ttl), (4711, 60))
        self.client.put("held", "1", lease=lease)
        self.assertEqual(list(lease.keys), [b"held"])
        self.assertEqual([answer.TTL for answer in lease.refresh()], [60])
        self.assertLessEqual(connect(1).get_lease_info(4711).TTL, 60)
        lease.revoke()
        self.assertEqual(self.client.get("held"), (None, None))
        self.assertEqual([answer.TTL for answer in lease.refresh()], [0])

    def test_a_lock_is_held_once(self):
        first, second = self.client.lock("job", ttl=20), connect(1).lock("job", ttl=20)
        self.assertTrue(first.acquire())
        self.assertFalse(second.acquire(timeout=1))
        self.assertTrue(first.is_acquired())
        self.assertTrue(first.release())
        self.assertTrue(second.acquire(timeout=PATIENCE_S))
        self.assertTrue(second.release())


class Cluster(unittest.TestCase):
    def test_members_and_status(self):
        client = connect()
        members = list(client.members)
        self.assertEqual(sorted(member.name for member in members), ["n1", "n2", "n3"])
        status = client.status()
        self.assertIn(status.leader.name, {"n1", "n2", "n3"})
        self.assertGreater(status.db_size, 0)
        self.assertEqual(list(client.list_alarms()), [])
        client.defragment()

    def test_alarms_are_raised_and_disarmed(self):
        client = connect()
        client.create_alarm()
        with self.assertRaises(Exception):
            client.put("refused", "1")
        client.disarm_alarm()
        client.put("accepted", "1")

    def test_a_snapshot_is_streamed(self):
        client = connect()
        client.put("incompressible", os.urandom(5000))
        file = io.BytesIO()
        client.snapshot(file)
        self.assertGreater(len(file.getvalue()), 5000)


if __name__ == "__main__":
    unittest.main(verbosity=2)
