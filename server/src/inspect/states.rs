//! The states that a list can be filtered by.

use proto::admin::Subject;
use proto::milvus::common::{ImportState, SegmentState};
use proto::quorate::CompactionState;
use statemachine::channel::ChannelState;

use super::{InspectError, list};

/// Above the number of every state.
const NUMBERS: std::ops::Range<i32> = 0..16;
const CHANNELS: [ChannelState; 6] = [
    ChannelState::ToWatch,
    ChannelState::WatchSuccess,
    ChannelState::WatchFailure,
    ChannelState::ToRelease,
    ChannelState::ReleaseSuccess,
    ChannelState::ReleaseFailure,
];

/// # Errors
/// Nothing of the kind is ever in that state.
pub(super) fn check(subject: Subject, state: &str) -> Result<(), InspectError> {
    let known = of(subject);
    if known.iter().any(|one| one.eq_ignore_ascii_case(state)) {
        return Ok(());
    }
    Err(InspectError::Invalid(match known.is_empty() {
        true => format!("state `{state}`: this list cannot be filtered by state"),
        false => format!("state `{state}` is none of {}", known.join(", ")),
    }))
}

fn of(subject: Subject) -> Vec<String> {
    let word = |name: &str| name.to_owned();
    match subject {
        Subject::Segment => {
            let all = NUMBERS.filter_map(|number| SegmentState::try_from(number).ok());
            all.map(|state| word(state.as_str_name())).collect()
        }
        Subject::Channel => {
            let all = CHANNELS.iter().map(|state| format!("{state:?}"));
            all.chain([word(list::NO_COMMAND)]).collect()
        }
        Subject::Compaction => {
            let all = NUMBERS.filter_map(|number| CompactionState::try_from(number).ok());
            all.map(|state| word(list::plan_state(state))).collect()
        }
        Subject::Import => {
            let all = NUMBERS.filter_map(|number| ImportState::try_from(number).ok());
            all.map(|state| word(state.as_str_name())).collect()
        }
        Subject::Index | Subject::Garbage | Subject::Unspecified => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_nothing_can_be_in_is_refused_with_those_that_are() {
        let says = |subject, state| match check(subject, state) {
            Ok(()) => "fine".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(says(Subject::Segment, "growing"), "fine");
        assert_eq!(says(Subject::Import, "importcompleted"), "fine");
        assert_eq!(
            says(Subject::Channel, "growing"),
            "state `growing` is none of ToWatch, WatchSuccess, WatchFailure, ToRelease, \
             ReleaseSuccess, ReleaseFailure, no command"
        );
        assert_eq!(
            says(Subject::Compaction, "done"),
            "state `done` is none of unspecified, queued, executing, completed, synced, failed, \
             timed-out, cancelled"
        );
        assert_eq!(
            says(Subject::Index, "Finished"),
            "state `Finished`: this list cannot be filtered by state"
        );
    }
}
