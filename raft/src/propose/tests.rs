use std::time::Duration;

use proto::etcd;
use proto::quorate::command::Kind;
use statemachine::RequestId;

use super::*;

const NODE: u64 = 7;
const NONCE: u64 = 99;
const EPOCH: u64 = 3;

type Receiver = oneshot::Receiver<Result<Committed, ProposeError>>;

fn proposer() -> Arc<Proposer> {
    let proposer = Proposer::new(NODE, NONCE, Limits::default(), Handle::current());
    drop(proposer.take_run(RunBounds::NONE).expect("the registration"));
    register(&proposer, NONCE, EPOCH);
    proposer
}

fn tell(proposer: &Proposer, index: u64, by_request: Vec<(RequestId, Outcome)>) {
    proposer.applied(index, Outcomes { by_request, image: None });
}

fn register(proposer: &Proposer, nonce: u64, epoch: u64) {
    let registration = RequestId { origin: NODE, epoch: 0, seq: nonce };
    tell(proposer, 1, vec![(registration, Ok(Response::OriginRegistered { epoch }))]);
}

fn submit(proposer: &Proposer, key: &'static str) -> Receiver {
    let put = etcd::PutRequest { key: key.into(), ..Default::default() };
    let command = quorate::Command { fence: None, kind: Some(Kind::Put(put)) };
    proposer.submit(&command, Instant::now() + Duration::from_secs(60)).unwrap()
}

fn take(proposer: &Proposer) -> (u64, usize) {
    let run = proposer.take_run(RunBounds::NONE).expect("a run");
    (run.first_seq, run.n_commands)
}

fn is_idle(proposer: &Proposer) -> bool {
    proposer.take_run(RunBounds::NONE).is_none()
}

fn outcome_of(seq: u64, outcome: Outcome) -> (RequestId, Outcome) {
    (RequestId { origin: NODE, epoch: EPOCH, seq }, outcome)
}

fn put_outcome() -> Outcome {
    Ok(Response::Put(etcd::PutResponse::default()))
}

#[tokio::test]
async fn a_command_that_waits_for_its_outcome_is_not_sent_again() {
    let proposer = proposer();
    let mut waiting = submit(&proposer, "a");
    assert_eq!(take(&proposer), (1, 1));
    let sent = Instant::now();
    for second in 1..50 {
        proposer.sweep(sent + Duration::from_secs(second));
        assert!(is_idle(&proposer), "this node is only behind");
    }
    assert!(waiting.try_recv().is_err(), "and its client waits");
    proposer.sweep(sent + Duration::from_secs(61));
    assert!(matches!(waiting.try_recv(), Ok(Err(ProposeError::Unknown))));
}

#[tokio::test]
async fn an_installed_snapshot_sends_open_commands_and_the_registration_again() {
    let proposer = Proposer::new(NODE, NONCE, Limits::default(), Handle::current());
    assert_eq!(take(&proposer), (0, 1));
    assert!(is_idle(&proposer));
    proposer.installed();
    assert_eq!(take(&proposer), (0, 1), "the snapshot may hold the first one");
    register(&proposer, NONCE, EPOCH);
    let _waiting = submit(&proposer, "a");
    assert_eq!(take(&proposer), (1, 1));
    proposer.installed();
    assert_eq!(take(&proposer), (1, 1));
}

#[tokio::test]
async fn a_node_whose_commands_are_forgotten_registers_again() {
    let proposer = proposer();
    let mut sent = submit(&proposer, "sent");
    assert_eq!(take(&proposer), (1, 1));
    let mut unsent = submit(&proposer, "unsent");
    tell(&proposer, 5, vec![outcome_of(1, Err(Rejection::StaleRequest))]);
    assert!(matches!(sent.try_recv(), Ok(Err(ProposeError::Unknown))), "it may have been applied");

    let registration = proposer.take_run(RunBounds::NONE).expect("another registration");
    let run = quorate::Run::decode(registration.bytes).unwrap();
    let nonce = run.first_seq;
    assert_eq!((run.epoch, run.commands.len()), (0, 1));
    assert_ne!(nonce, NONCE, "the old nonce would get the old epoch");
    register(&proposer, nonce, EPOCH + 1);
    let run = proposer.take_run(RunBounds::NONE).expect("what was not sent yet");
    let run = quorate::Run::decode(run.bytes).unwrap();
    assert_eq!((run.epoch, run.first_seq, run.settled_below), (EPOCH + 1, 2, 2));
    let id = RequestId { origin: NODE, epoch: EPOCH + 1, seq: 2 };
    tell(&proposer, 6, vec![(id, put_outcome())]);
    assert!(matches!(unsent.try_recv(), Ok(Ok(_))));
}

#[tokio::test]
async fn a_refused_run_fails_the_commands_that_are_refused_alone() {
    let proposer = proposer();
    let mut waiting: Vec<Receiver> = ["a", "b", "c"].map(|key| submit(&proposer, key)).into();
    assert_eq!(take(&proposer), (1, 3));
    proposer.refused(1, 3, "one of them");
    assert_eq!(take(&proposer), (1, 1));
    assert_eq!(take(&proposer), (2, 1));
    proposer.refused(2, 1, "this one");
    let refused = waiting.remove(1).try_recv().unwrap().unwrap_err();
    assert_eq!(refused.to_string(), "the command was refused before it was logged: this one");
    assert_eq!(take(&proposer), (3, 1));
    assert!(is_idle(&proposer));
    tell(&proposer, 5, vec![outcome_of(1, put_outcome()), outcome_of(3, put_outcome())]);
    for waiting in waiting {
        assert!(waiting.await.unwrap().is_ok());
    }
    let _more: Vec<Receiver> = ["d", "e"].map(|key| submit(&proposer, key)).into();
    assert_eq!(take(&proposer), (4, 2), "later ones travel together again");
}

#[tokio::test]
async fn what_another_leader_may_have_taken_is_not_called_refused() {
    let proposer = proposer();
    let mut waiting = submit(&proposer, "a");
    assert_eq!(take(&proposer), (1, 1));
    proposer.rewind_all();
    assert_eq!(take(&proposer), (1, 1));
    proposer.refused(1, 1, "this one");
    assert!(matches!(waiting.try_recv(), Ok(Err(ProposeError::Unknown))));
}

#[test]
fn runs_and_batches_are_written_as_their_messages_would_be() {
    for (epoch, first_seq, settled_below) in [(3, 40, 38), (0, 1, 0), (1, 1, 1)] {
        let head = RunHead { origin: 7, epoch, first_seq, settled_below };
        let mut bytes = BytesMut::new();
        head.encode(&mut bytes);
        assert_eq!(bytes.len(), head.encoded_len());
        let run = quorate::Run { origin: 7, epoch, first_seq, settled_below, commands: vec![] };
        assert_eq!(bytes.freeze(), run.encode_to_vec());
    }
    let run = Bytes::from_static(b"r");
    for (at_ms, epoch, runs) in [(0, 0, vec![]), (5, 2, vec![Bytes::new()]), (0, 1, vec![run])] {
        let batch = quorate::Batch { at_ms, runs: runs.clone(), time_epoch: epoch };
        assert_eq!(encode_batch(Stamp { at_ms, epoch }, &runs), batch.encode_to_vec());
    }
}
