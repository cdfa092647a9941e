//! What is reported of rows: that there are some, how far they are written, that they may be seen.

use proto::milvus::msg::MsgPosition;
use proto::quorate::{FinishImport, Growth, HasRows, NoteRows, SaveCheckpoints};

use super::{record, settle};
use crate::coordinator::records::{Outcomes, Records};
use crate::state::draft::Stop;

/// Rows have arrived. Of segments that are flushed or gone it is no news.
pub(super) fn note(records: &mut Records<'_, '_>, command: &NoteRows) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    for of in &command.segments {
        let key = records.keys().growth(of.segment);
        let Some(growth) = records.get::<Growth>(&key)? else { continue };
        if growth.has_rows() != HasRows::Yes {
            records.put(key, &Growth { has_rows: HasRows::Yes.into(), ..growth });
            outcomes.changed(of.segment);
        }
    }
    Ok(outcomes)
}

/// A checkpoint that is not newer than the one on record changes nothing and is no error: data nodes
/// report again after a lost answer. Neither is one of a channel that has ended.
pub(super) fn save_checkpoints(
    records: &mut Records<'_, '_>,
    command: SaveCheckpoints,
) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    for checkpoint in command.checkpoints {
        let Some(position) = checkpoint.position else { continue };
        if !records.exists(&records.keys().channel(&checkpoint.channel)) {
            continue;
        }
        let key = records.keys().checkpoint(&checkpoint.channel);
        let known = records.get::<MsgPosition>(&key)?;
        if known.is_none_or(|known| known.timestamp < position.timestamp) {
            records.put(key, &position);
            outcomes.changed_name(&checkpoint.channel);
        }
    }
    Ok(outcomes)
}

pub(super) fn finish_import(
    records: &mut Records<'_, '_>,
    command: &FinishImport,
) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    for of in &command.segments {
        let finished = record(records, *of).map(|mut info| {
            if info.is_importing {
                info.is_importing = false;
                records.put(records.keys().segment(*of), &info);
            }
        });
        settle(&mut outcomes, of.segment, finished)?;
    }
    Ok(outcomes)
}
