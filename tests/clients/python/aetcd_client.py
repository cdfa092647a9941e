"""The asynchronous Python client `aetcd` against the nodes of QUORATE_ENDPOINTS."""

import asyncio
import io
import os
import unittest

import aetcd

ENDPOINTS = [endpoint.rsplit(":", 1) for endpoint in os.environ["QUORATE_ENDPOINTS"].split(",")]
PATIENCE_S = 15


def connect(node=0):
    host, port = ENDPOINTS[node]
    return aetcd.Client(host=host, port=int(port), timeout=PATIENCE_S)


class Etcd(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.clients = [connect(node) for node in range(len(ENDPOINTS))]
        self.client = self.clients[0]
        await self.client.delete_prefix(b"a")

    async def asyncTearDown(self):
        for client in self.clients:
            await client.close()

    async def test_keys_are_put_read_and_deleted(self):
        await self.client.put(b"a", b"1")
        put = await self.client.put(b"a", b"2", prev_kv=True)
        self.assertEqual(put.prev_kv.value, b"1")
        got = await self.clients[1].get(b"a")
        self.assertEqual((got.value, got.version), (b"2", 2))
        self.assertEqual(got.mod_revision, put.header.revision)
        self.assertIsNone(await self.client.get(b"a-missing"))
        self.assertIsNotNone(await self.client.delete(b"a"))
        self.assertIsNone(await self.client.get(b"a"))

    async def test_ranges_and_prefixes(self):
        for number in range(30):
            await self.clients[number % 3].put(f"a/{number:02}".encode(), str(number).encode())
        found = await self.client.get_prefix(b"a/")
        self.assertEqual([kv.value for kv in found], [str(n).encode() for n in range(30)])
        some = await self.client.get_range(b"a/10", b"a/20", sort_order="descend")
        self.assertEqual([kv.key for kv in some][0], b"a/19")
        gone = await self.client.delete_range(b"a/00", b"a/05")
        self.assertEqual(gone.deleted, 5)

    async def test_transactions_take_one_branch(self):
        operations = self.client.transactions
        succeeded, _ = await self.client.transaction(
            compare=[operations.version(b"a/t") == 0],
            success=[operations.put(b"a/t", b"1")], failure=[operations.get(b"a/t")])
        self.assertTrue(succeeded)
        succeeded, answers = await self.client.transaction(
            compare=[operations.value(b"a/t") == b"other"],
            success=[operations.put(b"a/t", b"2")], failure=[operations.get(b"a/t")])
        self.assertFalse(succeeded)
        self.assertEqual(len(answers), 1)
        self.assertTrue(await self.client.replace(b"a/t", b"1", b"3"))

    async def test_watches_follow_on_every_node(self):
        for node, client in enumerate(self.clients):
            prefix = f"a/w{node}/".encode()
            watch = await client.watch_prefix(prefix, prev_kv=True)
            for number in range(10):
                await self.clients[(node + 1) % 3].put(prefix + b"k", str(number).encode())
            await self.client.delete(prefix + b"k")
            seen = []
            async with asyncio.timeout(PATIENCE_S):
                async for event in watch:
                    seen.append(event)
                    if len(seen) == 11:
                        break
            await watch.cancel()
            self.assertEqual([event.kv.value for event in seen[:10]],
                             [str(number).encode() for number in range(10)])
            self.assertEqual(seen[10].kind, aetcd.rtypes.EventKind.DELETE)
            self.assertEqual(seen[10].prev_kv.value, b"9")

    async def test_leases_and_locks(self):
        lease = await self.client.lease(30)
        await self.clients[2].put(b"a/held", b"1", lease=lease.id)
        self.assertEqual(await lease.keys(), [b"a/held"])
        self.assertLessEqual(await lease.remaining_ttl(), 30)
        self.assertEqual(await lease.granted_ttl(), 30)
        await lease.refresh()
        await lease.revoke()
        self.assertIsNone(await self.client.get(b"a/held"))
        async with self.client.lock(b"a/lock", ttl=20):
            other = self.clients[1].lock(b"a/lock", ttl=20)
            self.assertFalse(await other.acquire(timeout=1))
        self.assertTrue(await other.acquire(timeout=PATIENCE_S))
        await other.release()

    async def test_members_status_and_snapshot(self):
        names = sorted([member.name async for member in self.client.members()])
        self.assertEqual(names, ["n1", "n2", "n3"])
        status = await self.client.status()
        self.assertGreater(status.db_size, 0)
        await self.client.put(b"a/incompressible", os.urandom(5000))
        file = io.BytesIO()
        await self.client.snapshot(file)
        self.assertGreater(len(file.getvalue()), 5000)


if __name__ == "__main__":
    unittest.main(verbosity=2)
