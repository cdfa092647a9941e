use proto::etcd;

use super::*;

fn run() -> quorate::Run {
    let put = etcd::PutRequest { key: "a".into(), ..Default::default() };
    let command = quorate::Command { fence: None, kind: Some(Kind::Put(put)) };
    quorate::Run {
        origin: 7,
        epoch: 3,
        first_seq: 40,
        settled_below: 38,
        commands: vec![command.clone(), command],
    }
}

#[test]
fn the_names_of_a_run_are_found_without_its_commands() {
    let whole = run().encode_to_vec();
    let head = RunHead { origin: 7, epoch: 3, first_seq: 40, n_commands: 2 };
    assert_eq!(head_of(&whole), Some(head));
    // A command that nobody can decode, and fields that nobody knows.
    let mut newer = whole.clone();
    newer.extend_from_slice(&[0x2a, 0x03, 0xff, 0xff, 0xff]);
    newer.extend_from_slice(&[0xf8, 0x07, 0x01]);
    assert_eq!(head_of(&newer), Some(RunHead { n_commands: 3, ..head }));
    for end in 0..whole.len() {
        let cut = head_of(&whole[..end]);
        assert!(cut.is_none_or(|cut| cut.n_commands < 2), "{end}: {cut:?}");
    }
    let empty = [0x2a, 0x00].repeat(limits::RUN_COMMANDS_MAX + 1);
    assert_eq!(head_of(&empty), None);
}

#[test]
fn a_run_is_admitted_from_its_origin_with_its_count_only() {
    let bytes = Bytes::from(run().encode_to_vec());
    assert_eq!(admit_run(&bytes, 7, 2, KNOWN_LEVEL), Ok(()));
    assert_eq!(admit_run(&bytes, 8, 2, KNOWN_LEVEL), Err(Refused::Origin { origin: 7, caller: 8 }));
    let miscounted = Refused::Count { found: 2, claimed: 3 };
    assert_eq!(admit_run(&bytes, 7, 3, KNOWN_LEVEL), Err(miscounted));
    let ahead = quorate::Run { settled_below: 41, ..run() };
    let numbers = Refused::Numbers { settled_below: 41, first_seq: 40 };
    assert_eq!(admit_run(&ahead.encode_to_vec().into(), 7, 2, KNOWN_LEVEL), Err(numbers));
    let crowded = quorate::Run {
        commands: vec![run().commands.remove(0); limits::RUN_COMMANDS_MAX + 1],
        ..run()
    };
    let refused = admit_run(&crowded.encode_to_vec().into(), 7, crowded.commands.len(), 9);
    assert!(matches!(refused, Err(Refused::TooManyCommands { .. })), "{refused:?}");
}

#[test]
fn each_flipped_bit_of_a_run_gives_another_run_or_none() {
    // What a flip leaves is a sound run of other numbers or values at most: the checksum beside a
    // forwarded run is what finds it.
    let bytes = run().encode_to_vec();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if admit_run(&flipped.clone().into(), 7, 2, KNOWN_LEVEL).is_ok() {
            let other = quorate::Run::decode(&flipped[..]).unwrap();
            assert_ne!(other, run(), "bit {bit}");
        }
    }
}

#[test]
fn a_level_beyond_this_binary_is_not_admitted() {
    let raise = |level| {
        let kind = Some(Kind::RaiseLevel(quorate::RaiseLevel { level }));
        let commands = vec![quorate::Command { fence: None, kind }];
        Bytes::from(quorate::Run { commands, ..run() }.encode_to_vec())
    };
    assert_eq!(admit_run(&raise(KNOWN_LEVEL), 7, 1, KNOWN_LEVEL), Ok(()));
    let refused = admit_run(&raise(KNOWN_LEVEL + 1), 7, 1, KNOWN_LEVEL);
    assert!(matches!(refused, Err(Refused::Level { .. })), "{refused:?}");
}

#[test]
fn a_command_above_the_level_is_not_taken_in() {
    let area = quorate::CoordinatorCommand::default();
    let command = quorate::Command { fence: None, kind: Some(Kind::Coordinator(area)) };
    let refused = admit_command(&command, || KEYSPACE);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "a command of the coordinator needs feature level 2, the cluster is at level 1"
    );
    assert_eq!(admit_command(&command, || COORDINATOR), Ok(()));
}
