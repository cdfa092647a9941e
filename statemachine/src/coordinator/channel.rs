//! Commands on channels.

pub mod view;

use proto::quorate;

use crate::coordinator::records::{Outcomes, Records};
use crate::state::draft::Stop;

pub(crate) fn apply(
    _records: &mut Records<'_, '_>,
    _command: quorate::ChannelCommand,
) -> Result<Outcomes, Stop> {
    Ok(Outcomes::default())
}
