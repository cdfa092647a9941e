//! Our text of Milvus's messages, against what real Milvus components said to each other.
//!
//! `captures/calls.tsv` holds the calls between the components of a stock Milvus 2.3.5 while a
//! client created, filled, indexed, searched and dropped a collection: seconds, callee, method,
//! metadata, code, request and response in hex.

use std::collections::BTreeMap;

use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage, Value};

/// Fails on a field that our text does not know.
fn assert_all_known(message: &DynamicMessage, what: &str) {
    let name = message.descriptor().full_name().to_owned();
    let unknown: Vec<u32> = message.unknown_fields().map(|field| field.number()).collect();
    assert!(unknown.is_empty(), "{what}: {name} has unknown fields {unknown:?}");
    for (_, value) in message.fields() {
        each_message(value, &mut |inner| assert_all_known(inner, what));
    }
}

fn each_message(value: &Value, visit: &mut dyn FnMut(&DynamicMessage)) {
    if let Some(message) = value.as_message() {
        visit(message);
    }
    for value in value.as_list().into_iter().flatten() {
        each_message(value, visit);
    }
    for value in value.as_map().into_iter().flat_map(|entries| entries.values()) {
        each_message(value, visit);
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).expect("a hex digit");
    let byte = |pair: &[u8]| u8::try_from(digit(pair[0]) << 4 | digit(pair[1])).expect("a byte");
    text.as_bytes().chunks(2).map(byte).collect()
}

#[test]
fn every_recorded_call_decodes_completely_and_encodes_to_the_same_size() {
    let pool = DescriptorPool::decode(proto::DESCRIPTORS).expect("our own descriptors");
    let mut counts = BTreeMap::new();
    for line in include_str!("captures/calls.tsv").lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let (service, name) = columns[2][1..].split_once('/').expect("service and method");
        let service = pool.get_service_by_name(service).expect("a service of ours");
        let method = service.methods().find(|method| method.name() == name).expect("a method");
        for (message, bytes) in [(method.input(), columns[5]), (method.output(), columns[6])] {
            let bytes = hex(bytes);
            let decoded = DynamicMessage::decode(message, &bytes[..])
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_all_known(&decoded, name);
            assert_eq!(prost::Message::encoded_len(&decoded), bytes.len(), "{name}: {decoded}");
        }
        *counts.entry(columns[2]).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 56, "{counts:?}");
    assert_eq!(counts.values().sum::<i32>(), 510);
}
