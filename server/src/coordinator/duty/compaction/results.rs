//! What a data node says that it made: its logs, named by path, become ids. A log of another segment
//! is none of the result.

use proto::milvus::data::{CompactionResult, FieldBinlog};
use proto::quorate::CompactionTask;

/// # Errors
/// Why the result cannot be that of the plan.
pub(super) fn parse(
    prefix: &str,
    task: &CompactionTask,
    mut result: CompactionResult,
) -> Result<CompactionResult, String> {
    let CompactionTask { plan, collection, partition, .. } = *task;
    if result.plan_id != plan {
        return Err(format!("it is of plan {}", result.plan_id));
    }
    let segment = result.segment_id;
    let place = move |area: &str| format!("{prefix}{area}/{collection}/{partition}/{segment}");
    name_by_id(&mut result.insert_logs, &place("insert_log"), Below::Field)?;
    name_by_id(&mut result.field2_statslog_paths, &place("stats_log"), Below::Field)?;
    name_by_id(&mut result.deltalogs, &place("delta_log"), Below::Segment)?;
    result.deltalogs.retain(|logs| !logs.binlogs.is_empty());
    Ok(result)
}

/// What the file lies in.
#[derive(Clone, Copy)]
enum Below {
    Field,
    Segment,
}

fn name_by_id(logs: &mut [FieldBinlog], folder: &str, below: Below) -> Result<(), String> {
    for field in logs {
        let folder = match below {
            Below::Field => format!("{folder}/{}/", field.field_id),
            Below::Segment => format!("{folder}/"),
        };
        for log in &mut field.binlogs {
            let number = log.log_path.strip_prefix(&folder).and_then(|id| id.parse().ok());
            match number {
                Some(number) if number > 0 => log.log_id = number,
                _ => return Err(format!("log {:?} is not in {folder}", log.log_path)),
            }
            log.log_path = String::new();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proto::milvus::data::Binlog;

    use super::*;

    fn logs(field_id: i64, path: &str) -> Vec<FieldBinlog> {
        let log = Binlog { log_path: path.to_owned(), log_size: 9, ..Default::default() };
        vec![FieldBinlog { field_id, binlogs: vec![log] }]
    }

    fn parsed(result: CompactionResult) -> String {
        let task =
            CompactionTask { plan: 5, collection: 1, partition: 2, ..CompactionTask::default() };
        match parse("files/", &task, result) {
            Err(reason) => reason,
            Ok(result) => {
                let all = [result.insert_logs, result.field2_statslog_paths, result.deltalogs];
                let all = all.into_iter().flatten().flat_map(|field| field.binlogs);
                all.map(|log| format!("{}{} ", log.log_id, log.log_path)).collect()
            }
        }
    }

    #[test]
    fn logs_of_a_result_are_its_own() {
        let result = || CompactionResult {
            plan_id: 5,
            segment_id: 3,
            insert_logs: logs(100, "files/insert_log/1/2/3/100/70"),
            field2_statslog_paths: logs(100, "files/stats_log/1/2/3/100/71"),
            deltalogs: logs(0, "files/delta_log/1/2/3/72"),
            ..CompactionResult::default()
        };
        assert_eq!(parsed(result()), "70 71 72 ");
        let other = CompactionResult { plan_id: 6, ..result() };
        assert_eq!(parsed(other), "it is of plan 6");
        for path in [
            "files/insert_log/1/2/4/100/70",
            "files/insert_log/1/2/3/101/70",
            "files/insert_log/1/2/3/100/x",
            "other/insert_log/1/2/3/100/70",
            "",
        ] {
            let alien = CompactionResult { insert_logs: logs(100, path), ..result() };
            assert_eq!(
                parsed(alien),
                format!("log {path:?} is not in files/insert_log/1/2/3/100/")
            );
        }
    }
}
