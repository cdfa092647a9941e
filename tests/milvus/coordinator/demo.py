"""What Quorate is for, in a minute: a Milvus whose DataCoord survives the loss of its leader."""

from coordinator import garbage, invariants, objects, script
from coordinator.faults import kill
from coordinator.invariants import Rows
from coordinator.ledger import Ledger, Workers
from coordinator.probe import Probe

SETTINGS = garbage.SETTINGS
ROUNDS = 5
INSERTS = 4
BATCH = 500


def run(stage):
    session = stage.cluster.coordinator_session()
    stage.say(f"Milvus's DataCoord is {session['Address']}, server {session['ServerID']}")
    ledger = Ledger(stage, "demo")
    ledger.index()
    # Or an automatic compaction comes before the one that is shown.
    ledger.collection.set_properties({"collection.autocompaction.enabled": "false"})
    for _ in range(ROUNDS):
        for _ in range(INSERTS):
            ledger.insert(BATCH)
        ledger.delete(BATCH)
        ledger.flush()
    stage.say(f"{ledger.inserted} rows inserted in {ROUNDS} rounds with a flush each,"
              f" {len(ledger.deleted)} deleted; num_entities {ledger.collection.num_entities}")
    kill_while_inserting(stage, ledger)
    ledger.check_rows()
    compact_and_collect(stage, ledger)
    ledger.check_rows()
    script.wait_quiet(stage)
    invariants.check_all(stage, {"demo": Rows(len(ledger.live), ledger.inserted)})


def kill_while_inserting(stage, ledger):
    ledger.made.clear()
    before = ledger.inserted
    with Probe(stage, ledger.name) as probe, Workers((ledger.insert, 0.02)) as workers:
        workers.go_on(2)
        moments = kill(stage, workers, 1, stage.options.seed)
        workers.go_on(2)
    ledger.check_calls()
    stage.say(f"rows were assigned again {probe.gaps_ms(moments)[0]:.0f} ms after the SIGKILL")
    stage.say(f"{ledger.inserted - before} rows inserted meanwhile; {ledger.pauses()}")
    session = stage.cluster.coordinator_session()
    stage.say(f"Milvus's DataCoord is {session['Address']}, server {session['ServerID']}")


def compact_and_collect(stage, ledger):
    ledger.wait_index()
    before = objects.listed(stage.milvus.objects)
    entities = ledger.collection.num_entities
    garbage.compact(stage, ledger)
    after = objects.listed(stage.milvus.objects)
    stage.say(f"the compaction left out {entities - ledger.collection.num_entities} deleted rows")
    gone = before.keys() - after.keys()
    size = sum(before[path] for path in gone)
    stage.say(f"garbage collection deleted {len(gone)} files of {size} bytes"
              f" ({objects.counted(gone)}); {len(after)} files are left")
