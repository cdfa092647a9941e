//! Log records: text for people, one JSON object per line for machines.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::path::PathBuf;

use tracing::error;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::checked::LogFormat;

/// Sends log records to standard error, which is unbuffered and not mixed with results.
pub(crate) fn start(format: LogFormat, filter: Targets) {
    let registry = tracing_subscriber::registry().with(quieted(filter));
    match format {
        LogFormat::Text => registry
            .with(
                fmt::layer()
                    .with_writer(std::io::stderr)
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_target(true),
            )
            .init(),
        LogFormat::Json => registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_writer(std::io::stderr)
                    .with_current_span(false)
                    .with_span_list(false),
            )
            .init(),
    }
}

/// openraft and the HTTP stack report every heartbeat and frame, and openraft warns twenty times a
/// second of a peer that is away, which `raft` says once. A filter that names them explicitly keeps
/// its word.
fn quieted(filter: Targets) -> Targets {
    use tracing::level_filters::LevelFilter;

    let asked: Vec<String> = filter.iter().map(|(target, _)| target.to_owned()).collect();
    let mut quieted = filter;
    let noisy = [
        ("openraft", LevelFilter::ERROR),
        ("h2", LevelFilter::WARN),
        ("hyper", LevelFilter::WARN),
        ("tonic", LevelFilter::WARN),
        ("tower", LevelFilter::WARN),
    ];
    for (target, level) in noisy {
        if !asked.iter().any(|known| known == target) {
            quieted = quieted.with_target(target, level);
        }
    }
    quieted
}

/// Makes a panic anywhere end the process after it was logged, and noted in `data_dir`.
pub(crate) fn abort_on_panic(data_dir: PathBuf) {
    std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let payload = info.payload();
        let reason = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a panic without a message");
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::force_capture();
        error!(
            error = reason,
            place,
            thread = thread.name().unwrap_or("unnamed"),
            %backtrace,
            "bug: a thread panicked, the process ends so that it cannot go on half alive"
        );
        raft::failure::note_end(&data_dir, &format!("panic: {reason} at {place}"));
        std::process::abort();
    }));
}
