//! Commands on garbage collection.
//!
//! A pause is replicated: whoever asks for one copies files meanwhile, and a new leader must not
//! begin to delete them.

pub mod view;

use proto::quorate::garbage_command::Kind;
use proto::quorate::{self, GarbageControl};

use crate::coordinator::Refusal;
use crate::coordinator::records::{Outcomes, Records};
use crate::state::draft::Stop;

pub(crate) fn apply(
    records: &mut Records<'_, '_>,
    command: quorate::GarbageCommand,
) -> Result<Outcomes, Stop> {
    let Some(kind) = command.kind else {
        return Err(Refusal::unknown_command("garbage").into());
    };
    let key = records.keys().garbage_control();
    match kind {
        Kind::Pause(pause) => {
            if pause.duration_ms == 0 {
                return Err(Refusal::Invalid {
                    field: "duration".to_owned(),
                    value: "0".to_owned(),
                    reason: "a pause takes time".to_owned(),
                }
                .into());
            }
            let control = records.get::<GarbageControl>(&key)?.unwrap_or_default();
            let until = records.at_ms().saturating_add(pause.duration_ms);
            let paused_until_ms = control.paused_until_ms.max(until);
            records.put(key, &GarbageControl { paused_until_ms });
        }
        Kind::Resume(quorate::ResumeGarbage {}) => records.delete(key),
    }
    Ok(Outcomes::default())
}

#[cfg(test)]
mod tests;
