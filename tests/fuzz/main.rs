//! Every decoder of foreign bytes against drawn mutations: none panics, none takes much more memory
//! than its input is long. `make fuzz` runs the same decoders guided by coverage.
//!
//! `QUORATE_FUZZ_SECONDS` sets the time for all of them together, `QUORATE_FUZZ_SEED` replays a run.

mod decoders;
mod mutation;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use decoders::{DECODERS, Decoder};
use mutation::Mutator;

const SECONDS_DEFAULT: u64 = 60;
/// So many inputs at least, however slow the machine is.
const INPUTS_MIN: u64 = 200;

fn corpus(decoder: &Decoder) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(decoder.name)
}

/// What a run begins with: the inputs that are right, and the committed ones, in a fixed order.
fn inputs(decoder: &Decoder) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(corpus(decoder)) {
        Ok(files) => files.map(|file| file.expect("a readable folder").path()).collect(),
        Err(_) => Vec::new(),
    };
    files.sort();
    let committed = files.iter().map(|file| std::fs::read(file).expect("a readable file"));
    (decoder.seeds)().into_iter().chain(committed).collect()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} = {text:?}: a number is expected")))
}

/// Runs one input and keeps it, where it is bad, beside what the build makes.
fn run(decoder: &Decoder, input: &[u8]) {
    let reason = match std::panic::catch_unwind(|| decoder.check(input)) {
        Ok(Ok(())) => return,
        Ok(Err(reason)) => reason,
        Err(_) => "a panic".to_owned(),
    };
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", decoder.name));
    std::fs::write(&kept, input).expect("writing the input that was found");
    panic!(
        "decoder {}: {reason} for an input of {} bytes, kept as {}; once mended, it belongs into {}",
        decoder.name,
        input.len(),
        kept.display(),
        corpus(decoder).display()
    );
}

#[test]
fn no_decoder_panics_or_takes_much_memory() {
    let seed = number("QUORATE_FUZZ_SEED").unwrap_or_else(rand::random);
    let seconds = number("QUORATE_FUZZ_SECONDS").unwrap_or(SECONDS_DEFAULT);
    println!("QUORATE_FUZZ_SEED={seed}");
    let share = Duration::from_secs(seconds) / u32::try_from(DECODERS.len()).expect("few");
    for decoder in DECODERS {
        let inputs = inputs(decoder);
        for input in &inputs {
            run(decoder, input);
        }
        let mut mutator = Mutator::new(seed);
        let (began, mut n_inputs) = (Instant::now(), 0);
        while n_inputs < INPUTS_MIN || began.elapsed() < share {
            run(decoder, &mutator.draw(&inputs));
            n_inputs += 1;
        }
        println!("{}: {n_inputs} inputs from {} to begin with", decoder.name, inputs.len());
    }
}

#[test]
fn an_allocation_that_follows_a_length_in_the_input_is_found() {
    let trusting = Decoder {
        name: "planted",
        read: |bytes| {
            let length = bytes.first().map_or(0, |length| usize::from(*length) << 16);
            std::hint::black_box(Vec::<u8>::with_capacity(length));
        },
        base_bytes: 4 << 10,
        seeds: Vec::new,
    };
    let found = std::panic::catch_unwind(|| {
        let mut mutator = Mutator::new(1);
        (0..INPUTS_MIN).for_each(|_| run(&trusting, &mutator.draw(&[])));
    });
    assert!(found.is_err(), "an unbounded allocation passed");
}
