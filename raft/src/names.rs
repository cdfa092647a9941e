//! Turns names of peers into addresses, apart from connecting to them.
//!
//! A name server that hangs must not take the connections of a cluster away: an answer is kept,
//! used while it is fresh without asking, and used for want of a better one whatever its age.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

/// An answer is not asked for again for so long.
const FRESH: Duration = Duration::from_secs(5);
/// How long a name without any answer is waited for.
const LOOKUP_MAX: Duration = Duration::from_secs(2);

type Answer = Result<Arc<[SocketAddr]>, Arc<str>>;
/// Asks the system.
pub type Lookup = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

#[derive(Default)]
struct Entry {
    known: Option<(Arc<[SocketAddr]>, Instant)>,
    /// The one question that is under way.
    asking: Option<Shared<BoxFuture<'static, Answer>>>,
}

/// Names that were asked for, with their answers. Clones share them.
#[derive(Clone)]
pub(crate) struct Names {
    lookup: Arc<Lookup>,
    fresh: Duration,
    lookup_max: Duration,
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
}

impl Names {
    pub(crate) fn new(lookup: Arc<Lookup>) -> Names {
        Names { lookup, fresh: FRESH, lookup_max: LOOKUP_MAX, entries: Arc::default() }
    }

    /// The addresses behind `HOST:PORT`, at once where they are addresses already or known.
    ///
    /// # Errors
    /// The name has no address, or no answer came in time.
    pub(crate) async fn resolve(&self, address: &str) -> io::Result<Arc<[SocketAddr]>> {
        if let Ok(literal) = address.parse::<SocketAddr>() {
            return Ok([literal].into());
        }
        let (known, asking) = self.look_up(address);
        // What is known may be old: the answer that is on its way counts from the next time on.
        if let Some(known) = known {
            return Ok(known);
        }
        match timeout(self.lookup_max, asking).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(reason)) => Err(io::Error::other(format!("{address}: {reason}"))),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{address}: the name was not resolved within {:?}", self.lookup_max),
            )),
        }
    }

    /// What is known of a name, and the question that is under way where that is not fresh.
    fn look_up(
        &self,
        address: &str,
    ) -> (Option<Arc<[SocketAddr]>>, Shared<BoxFuture<'static, Answer>>) {
        let mut entries = self.entries.lock();
        let entry = entries.entry(address.to_owned()).or_default();
        if let Some((known, at)) = &entry.known
            && at.elapsed() < self.fresh
        {
            let fresh = Arc::clone(known);
            return (Some(Arc::clone(&fresh)), std::future::ready(Ok(fresh)).boxed().shared());
        }
        let known = entry.known.as_ref().map(|(known, _)| Arc::clone(known));
        let asking = entry.asking.get_or_insert_with(|| self.ask(address)).clone();
        // Runs on while no caller waits for it; one question a name, however long that takes.
        tokio::spawn(asking.clone().map(drop));
        (known, asking)
    }

    fn ask(&self, address: &str) -> Shared<BoxFuture<'static, Answer>> {
        let (name, entries) = (address.to_owned(), Arc::clone(&self.entries));
        let looking_up = (self.lookup)(name.clone());
        async move {
            let answer = match looking_up.await {
                Ok(found) if !found.is_empty() => Ok(Arc::from(found)),
                Ok(_) => Err(Arc::from("the name has no address")),
                Err(error) => Err(Arc::from(error.to_string())),
            };
            let mut entries = entries.lock();
            let entry = entries.entry(name).or_default();
            entry.asking = None;
            if let Ok(found) = &answer {
                entry.known = Some((Arc::clone(found), Instant::now()));
            }
            answer
        }
        .boxed()
        .shared()
    }
}

/// The resolver of the system, which blocks a thread that is made for that.
pub(crate) fn system() -> Arc<Lookup> {
    Arc::new(|name| {
        Box::pin(async move { Ok(tokio::net::lookup_host(name).await?.collect::<Vec<_>>()) })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Answers with a port that counts the questions; `None` never answers.
    fn counting(answers: Vec<Option<io::Result<u16>>>) -> (Names, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, answers) = (Arc::clone(&asked), Mutex::new(answers.into_iter()));
        let names = Names::new(Arc::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let answer = answers.lock().next().flatten();
            Box::pin(async move {
                match answer {
                    Some(port) => Ok(vec![SocketAddr::from(([127, 0, 0, 1], port?))]),
                    None => std::future::pending().await,
                }
            })
        }));
        (names, asked)
    }

    async fn port(names: &Names) -> io::Result<u16> {
        names.resolve("n1.example:1").await.map(|found| found[0].port())
    }

    #[tokio::test]
    async fn an_answer_is_kept_and_used_while_the_name_server_hangs() {
        let (mut names, asked) = counting(vec![Some(Ok(1)), None]);
        for _ in 0..3 {
            assert_eq!(port(&names).await.unwrap(), 1);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        names.fresh = Duration::ZERO;
        names.lookup_max = Duration::from_secs(3600);
        for _ in 0..10 {
            assert_eq!(port(&names).await.unwrap(), 1, "it would wait for an hour");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2, "one question is under way, not ten");
    }

    #[tokio::test]
    async fn a_name_that_moved_is_found_the_next_time() {
        let (mut names, _) = counting(vec![Some(Ok(1)), Some(Ok(2))]);
        names.fresh = Duration::ZERO;
        assert_eq!(port(&names).await.unwrap(), 1);
        assert_eq!(port(&names).await.unwrap(), 1);
        names.fresh = FRESH;
        while port(&names).await.unwrap() != 2 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_name_without_an_answer_is_an_error_that_says_so() {
        let (mut names, _) = counting(vec![None]);
        names.lookup_max = Duration::from_millis(20);
        let late = port(&names).await.unwrap_err().to_string();
        assert!(late.contains("not resolved within 20ms"), "{late}");
        let (names, _) = counting(vec![Some(Err(io::Error::other("no such host"))), Some(Ok(3))]);
        let unknown = port(&names).await.unwrap_err().to_string();
        assert!(unknown.contains("no such host"), "{unknown}");
        assert_eq!(port(&names).await.unwrap(), 3, "an error is not kept");
        let literal = names.resolve("[::1]:7").await.unwrap();
        assert_eq!(literal.as_ref(), ["[::1]:7".parse::<SocketAddr>().unwrap()]);
    }
}
