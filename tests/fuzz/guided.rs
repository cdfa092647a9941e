//! One decoder under honggfuzz, which keeps what reaches new code. `QUORATE_DECODER` names it.

mod decoders;

use decoders::DECODERS;

fn main() {
    let name = std::env::var("QUORATE_DECODER").unwrap_or_default();
    let Some(decoder) = DECODERS.iter().find(|decoder| decoder.name == name) else {
        let names: Vec<&str> = DECODERS.iter().map(|decoder| decoder.name).collect();
        eprintln!("QUORATE_DECODER = {name:?}: one of {} is expected", names.join(", "));
        std::process::exit(2);
    };
    if let Some(folder) = std::env::args().nth(1) {
        // The inputs to begin with, as files.
        for (nth, seed) in (decoder.seeds)().iter().enumerate() {
            std::fs::write(format!("{folder}/seed-{nth}"), seed).expect("writing a seed");
        }
        return;
    }
    loop {
        honggfuzz::fuzz!(|input: &[u8]| {
            if let Err(reason) = decoder.check(input) {
                panic!("decoder {name}: {reason}");
            }
        });
    }
}
