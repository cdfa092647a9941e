//! Commands on segments: windows, seal, flush, drop, removal.

pub mod view;

use proto::quorate;

use crate::coordinator::records::{Outcomes, Records};
use crate::state::draft::Stop;

pub(crate) fn apply(
    _records: &mut Records<'_, '_>,
    _command: quorate::SegmentCommand,
) -> Result<Outcomes, Stop> {
    Ok(Outcomes::default())
}
