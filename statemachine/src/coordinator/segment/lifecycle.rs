//! Which moves between the states of a segment exist. No other file changes a state.

use proto::milvus::common::SegmentState;
use proto::milvus::data::SegmentInfo;

use crate::coordinator::Refusal;

/// What happens to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A window is opened or renewed.
    Renew,
    Seal,
    /// An import is complete: its files are there, nothing more comes.
    SealImport,
    /// Logs are saved, and more may come.
    Save,
    /// All its rows are saved.
    Flush,
    Drop,
    /// A compaction took its rows over.
    Compact,
}

/// The state after a step; `None` where the step does not exist.
fn next(state: SegmentState, step: Step) -> Option<SegmentState> {
    use SegmentState::{
        Dropped, Flushed, Flushing, Growing, Importing, None as Unset, NotExist, Sealed,
    };
    match (state, step) {
        (Growing, Step::Renew | Step::Save) => Some(Growing),
        (Growing | Sealed, Step::Seal) => Some(Sealed),
        (Importing | Sealed, Step::SealImport) => Some(Sealed),
        (Importing, Step::Save) => Some(Importing),
        (Sealed, Step::Save) => Some(Sealed),
        // Deletes of flushed segments come as logs, too.
        (Flushing | Flushed, Step::Save) => Some(Flushed),
        (Growing | Sealed | Importing | Flushing | Flushed, Step::Flush) => Some(Flushed),
        (Growing | Sealed | Importing | Flushing | Flushed, Step::Drop) => Some(Dropped),
        (Flushing | Flushed, Step::Compact) => Some(Dropped),
        (Sealed | Importing | Flushing | Flushed | Dropped | Unset | NotExist, Step::Renew)
        | (Importing | Flushing | Flushed | Dropped | Unset | NotExist, Step::Seal)
        | (Growing | Flushing | Flushed | Dropped | Unset | NotExist, Step::SealImport)
        | (Growing | Sealed | Importing, Step::Compact)
        | (Dropped | Unset | NotExist, Step::Save | Step::Flush | Step::Drop | Step::Compact) => {
            None
        }
    }
}

/// Whether [`Step::Drop`] exists for a state.
pub(crate) fn can_be_dropped(state: SegmentState) -> bool {
    next(state, Step::Drop).is_some()
}

/// Moves a segment on.
///
/// # Errors
/// The state does not allow the step.
pub(crate) fn advance(info: &mut SegmentInfo, step: Step) -> Result<(), Refusal> {
    match next(super::state_of(info), step) {
        Some(state) => {
            info.state = state.into();
            Ok(())
        }
        None => Err(super::refuse_state(info)),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_moves_between_states() {
        let steps = [
            Step::Renew,
            Step::Seal,
            Step::SealImport,
            Step::Save,
            Step::Flush,
            Step::Drop,
            Step::Compact,
        ];
        let mut table = String::new();
        for state in (0..=7).filter_map(|number| SegmentState::try_from(number).ok()) {
            for step in steps {
                if let Some(next) = next(state, step) {
                    table += &format!("{state:?} {step:?} {next:?}\n");
                }
            }
        }
        expect![[r#"
            Growing Renew Growing
            Growing Seal Sealed
            Growing Save Growing
            Growing Flush Flushed
            Growing Drop Dropped
            Sealed Seal Sealed
            Sealed SealImport Sealed
            Sealed Save Sealed
            Sealed Flush Flushed
            Sealed Drop Dropped
            Flushed Save Flushed
            Flushed Flush Flushed
            Flushed Drop Dropped
            Flushed Compact Dropped
            Flushing Save Flushed
            Flushing Flush Flushed
            Flushing Drop Dropped
            Flushing Compact Dropped
            Importing SealImport Sealed
            Importing Save Importing
            Importing Flush Flushed
            Importing Drop Dropped
        "#]]
        .assert_eq(&table);
    }
}
