//! Commands on channels.

pub mod view;

use proto::quorate;

use crate::coordinator::records::{Outcomes, Records};
use crate::state::draft::Stop;

/// Tells the owner of a channel to let go.
pub(crate) fn release(_records: &mut Records<'_, '_>, _channel: &str) -> Result<(), Stop> {
    Ok(())
}

pub(crate) fn apply(
    _records: &mut Records<'_, '_>,
    _command: quorate::ChannelCommand,
) -> Result<Outcomes, Stop> {
    Ok(Outcomes::default())
}
