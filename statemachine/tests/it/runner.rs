//! Runs laws on random inputs that a seed can bring back.

use std::fmt::Debug;
use std::hash::{BuildHasher, Hasher, RandomState};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

/// What a law says of one input.
pub(crate) type Verdict = Result<(), TestCaseError>;

/// Set to the seed that a failure printed to see it again.
const SEED: &str = "QUORATE_LAW_SEED";
/// Multiplies the number of cases, for a long run.
const CASES: &str = "QUORATE_LAW_CASES";

/// Checks a law on `cases` random inputs. A failure prints the smallest input that it could find,
/// and the seed.
pub(crate) fn law<S>(name: &str, cases: u32, inputs: S, holds: impl Fn(S::Value) -> Verdict)
where
    S: Strategy,
    S::Value: Debug,
{
    let seed = number(SEED).unwrap_or_else(|| RandomState::new().build_hasher().finish());
    let cases =
        cases.saturating_mul(number(CASES).map_or(1, |times| u32::try_from(times).unwrap()));
    eprintln!("{name}: {cases} cases, {SEED}={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 4_000, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    match TestRunner::new_with_rng(config, rng).run(&inputs, holds) {
        Ok(()) => {}
        Err(TestError::Fail(reason, input)) => {
            panic!("{name} is broken, replay with {SEED}={seed}\n{reason}\nsmallest: {input:?}")
        }
        Err(TestError::Abort(reason)) => panic!("{name}: {reason}"),
    }
}

#[expect(clippy::disallowed_methods, reason = "tests are configured, the state machine is not")]
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}
