//! Everything that goes to standard output, and the errors that go to standard error.

use std::io::{self, IsTerminal, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::args::OutputFormat;

/// Writes a line. A reader that went away (`quorate … | head`) is no error of ours.
pub(super) fn line(text: &str) {
    let mut out = io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Bytes as they are, for values.
pub(super) fn raw(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// What a person should know, beside the result.
pub(super) fn note(text: &str) {
    let mut out = io::stderr().lock();
    writeln!(out, "{text}").unwrap_or_default();
}

/// One line with the chain of causes.
pub(super) fn error(error: &anyhow::Error) {
    note(&format!("quorate: {error:#}"));
}

/// The value as JSON, or the text that `table` makes of it.
pub(super) fn show<T: Serialize>(
    format: OutputFormat,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    match format {
        OutputFormat::Table => line(&table(value)),
        OutputFormat::Json => line(&serde_json::to_string_pretty(value)?),
    }
    Ok(())
}

/// A table without lines, like those of other cluster tools: easy to read, to cut and to grep.
/// Columns in `right` hold numbers.
pub(super) fn table(heads: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads.iter().map(|head| head.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for index in right {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// Something turns while a step without a known length runs.
pub(super) fn spinner(what: &'static str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(what);
    spinner.enable_steady_tick(std::time::Duration::from_millis(100));
    spinner
}

/// A bar on standard error; silent where that is no terminal.
pub(super) fn progress(length: u64, what: &'static str, bytes: bool) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let amount = match bytes {
        true => "{bytes}/{total_bytes} {bytes_per_sec}",
        false => "{human_pos}/{human_len} rows {per_sec}",
    };
    let template = format!("{what:<10} [{{bar:30}}] {{percent:>3}}% {amount} eta {{eta}}");
    let style = ProgressStyle::with_template(&template)
        .expect("the template is written here")
        .progress_chars("=> ");
    ProgressBar::new(length).with_style(style)
}
