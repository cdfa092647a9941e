//! Object files, in a local folder or behind an S3 API, under the names that Milvus gives them:
//! absolute file names locally (`/var/lib/milvus/data/insert_log/…`), keys with the root path
//! remotely (`files/insert_log/…`).
//!
//! Every call has a deadline. A file that is being written is never seen half: S3 shows an object
//! when it is complete, and Milvus's local writer leaves files whose modification time is young.

mod clock;
mod connector;
mod health;

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig};

use super::settings::{CoordinatorSettings, RemoteStorage, Storage};
use clock::StoreClock;
use connector::{Connector, Kind};
use health::Health;

pub(crate) use health::{Outcome, StoreHealth, reason};

/// How long a copy, a deletion or the next page of a listing may take, retries included. Milvus's
/// `minio.requestTimeoutMs` where it is longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// An object file as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectFile {
    /// As Milvus writes it.
    pub(crate) path: String,
    pub(crate) size_bytes: u64,
    /// By the clock of the store.
    pub(crate) modified: SystemTime,
}

/// Why a call on the store did not succeed. It may have had its effect.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObjectError {
    #[error("the object store is not configured: {0}")]
    Misconfigured(String),
    #[error("{0} is no path of an object")]
    Path(String),
    #[error("object {path} does not exist")]
    Missing { path: String },
    #[error("no answer about {path} within {} s", .limit.as_secs())]
    Timeout { path: String, limit: Duration },
    #[error("the object store refused {path}")]
    Store {
        path: String,
        #[source]
        source: object_store::Error,
    },
}

impl ObjectError {
    fn of(path: &str, error: object_store::Error) -> ObjectError {
        let path = path.to_owned();
        if matches!(error, object_store::Error::NotFound { .. }) {
            ObjectError::Missing { path }
        } else {
            ObjectError::Store { path, source: error }
        }
    }
}

enum Place {
    Local(LocalFileSystem),
    Remote(Box<AmazonS3>),
    /// Every call says why.
    Nowhere(String),
}

/// The store that the configuration names. Cheap to share.
#[derive(Clone)]
pub(crate) struct Objects {
    place: Arc<Place>,
    timeout: Duration,
    clock: StoreClock,
    health: Health,
}

impl Objects {
    /// Opens the store, without asking it anything: a store that is down delays its callers and
    /// nothing else.
    pub(crate) fn new(settings: &CoordinatorSettings) -> Objects {
        let mut timeout = CALL_TIMEOUT;
        let clock = StoreClock::default();
        let place = match &settings.storage {
            Storage::Local { path } if path.starts_with('/') => {
                // Synced: metadata names a copy as soon as it is made.
                Place::Local(LocalFileSystem::new().with_fsync(true))
            }
            Storage::Local { path } => Place::Nowhere(format!("{path} is no absolute folder")),
            Storage::Remote(remote) => {
                timeout = timeout.max(remote.request_timeout);
                match open_remote(remote, timeout, &clock) {
                    Ok(store) => Place::Remote(Box::new(store)),
                    Err(error) => Place::Nowhere(error.to_string()),
                }
            }
        };
        if let Place::Nowhere(reason) = &place {
            tracing::error!(reason, "object store is not configured");
        }
        Objects { place: Arc::new(place), timeout, clock, health: Health::default() }
    }

    /// What time it is for the store, as its last answer said; `None` where it does not say. A local
    /// folder goes by the clock of its machine.
    pub(crate) fn store_now(&self) -> Option<SystemTime> {
        match &*self.place {
            Place::Local(_) => Some(SystemTime::now()),
            Place::Remote(_) | Place::Nowhere(_) => self.clock.now(),
        }
    }

    /// How calls on the store go.
    pub(crate) fn health(&self) -> StoreHealth {
        self.health.read()
    }

    /// Asks the store for the first object below a prefix, which ends without a slash; whether there is
    /// one does not matter.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    pub(crate) async fn probe(&self, prefix: &str) -> Result<(), ObjectError> {
        match self.list(prefix).next().await {
            None | Some(Ok(_) | Err(ObjectError::Missing { .. })) => {
                self.health.note(Ok(()));
                Ok(())
            }
            Some(Err(error)) => Err(error),
        }
    }

    /// Copies an object; one that stands at the destination is replaced. The copy is young: its
    /// modification time is that of the copying.
    ///
    /// # Errors
    /// `Missing` where there is no source; otherwise the copy may be there or not.
    pub(crate) async fn copy(&self, from: &str, to: &str) -> Result<(), ObjectError> {
        let (source, target) = (parse(from)?, parse(to)?);
        let copy = async {
            match &*self.place {
                // The store's own copy would be a hard link with the time of the original, which
                // garbage collection takes for the age.
                Place::Local(store) => {
                    let bytes = store.get(&source).await?.bytes().await?;
                    store.put(&target, bytes.into()).await.map(|_put| ())
                }
                Place::Remote(store) => store.copy(&source, &target).await,
                Place::Nowhere(reason) => return Ok(Err(reason.clone())),
            }
            .map(Ok)
        };
        self.call(from, copy).await
    }

    /// Deletes an object. One that is missing counts as deleted.
    ///
    /// # Errors
    /// The object may be there or not.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), ObjectError> {
        let target = parse(path)?;
        let delete = async {
            match &*self.place {
                Place::Local(store) => store.delete(&target).await,
                Place::Remote(store) => store.delete(&target).await,
                Place::Nowhere(reason) => return Ok(Err(reason.clone())),
            }
            .map(Ok)
        };
        match self.call(path, delete).await {
            Err(ObjectError::Missing { .. }) => Ok(()),
            other => other,
        }
    }

    /// Removes the folders above a deleted object that are empty now, `levels` of them at most.
    /// Only a local store has folders. Of no consequence where it does not succeed.
    pub(crate) async fn delete_empty_folders(&self, path: &str, levels: usize) {
        let Place::Local(_) = &*self.place else { return };
        for folder in FilePath::new(path).ancestors().skip(1).take(levels) {
            if tokio::fs::remove_dir(folder).await.is_err() {
                return;
            }
        }
    }

    /// All objects below a prefix, which ends without a slash, in any order. Ends after the first
    /// error; a prefix that does not exist has none.
    pub(crate) fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectFile, ObjectError>> {
        let prefix = prefix.to_owned();
        let path = match parse(&prefix) {
            Ok(path) => path,
            Err(error) => return stream::iter([Err(error)]).boxed(),
        };
        let health = self.health.clone();
        let (pages, is_local) = match &*self.place {
            Place::Local(store) => (store.list(Some(&path)), true),
            Place::Remote(store) => (store.list(Some(&path)), false),
            Place::Nowhere(reason) => {
                let error = ObjectError::Misconfigured(reason.clone());
                return stream::iter([Err(error)]).boxed();
            }
        };
        bounded(pages, prefix, is_local, self.timeout)
            .inspect(move |file| {
                // What it lists is the business of whoever asked.
                if let Err(error) = file {
                    health.note(Err(error));
                }
            })
            .boxed()
    }

    /// Runs a call within the deadline.
    async fn call(
        &self,
        path: &str,
        call: impl Future<Output = Result<Result<(), String>, object_store::Error>>,
    ) -> Result<(), ObjectError> {
        let done = match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(reason))) => Err(ObjectError::Misconfigured(reason)),
            Ok(Err(error)) => Err(ObjectError::of(path, error)),
            Err(_elapsed) => {
                Err(ObjectError::Timeout { path: path.to_owned(), limit: self.timeout })
            }
        };
        self.health.note(done.as_ref().copied());
        done
    }
}

/// A listing each step of which has the deadline, and which ends after an error.
fn bounded(
    pages: BoxStream<'static, object_store::Result<ObjectMeta>>,
    prefix: String,
    is_local: bool,
    limit: Duration,
) -> impl Stream<Item = Result<ObjectFile, ObjectError>> + Send {
    stream::unfold(Some((pages, prefix)), move |state| async move {
        let (mut pages, prefix) = state?;
        match tokio::time::timeout(limit, pages.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(meta))) => Some((Ok(file_of(&meta, is_local)), Some((pages, prefix)))),
            Ok(Some(Err(error))) => Some((Err(ObjectError::of(&prefix, error)), None)),
            Err(_elapsed) => Some((Err(ObjectError::Timeout { path: prefix, limit }), None)),
        }
    })
}

fn file_of(meta: &ObjectMeta, is_local: bool) -> ObjectFile {
    let slash = if is_local { "/" } else { "" };
    ObjectFile {
        path: format!("{slash}{}", meta.location),
        size_bytes: meta.size,
        modified: meta.last_modified.into(),
    }
}

fn parse(path: &str) -> Result<Path, ObjectError> {
    let relative = path.strip_prefix('/').unwrap_or(path);
    match Path::parse(relative) {
        Ok(parsed) if !relative.is_empty() => Ok(parsed),
        Ok(_) | Err(_) => Err(ObjectError::Path(path.to_owned())),
    }
}

fn open_remote(
    remote: &RemoteStorage,
    timeout: Duration,
    clock: &StoreClock,
) -> object_store::Result<AmazonS3> {
    let scheme = if remote.use_ssl { "https" } else { "http" };
    let host = if remote.has_bucket_in_host {
        format!("{}.{}", remote.bucket, remote.address)
    } else {
        remote.address.clone()
    };
    let region = if remote.region.is_empty() { "us-east-1" } else { &remote.region };
    // Services that give out roles are asked over TLS or without, wherever the store itself is.
    let kind = if remote.use_ssl || remote.use_iam { Kind::Tls } else { Kind::Plain };
    let connector = Connector { kind, host: host.clone(), clock: clock.clone() };
    let builder = if remote.use_iam {
        // Roles of the machine or the pod, as the environment describes them.
        let builder = AmazonS3Builder::from_env();
        match remote.iam_endpoint.as_str() {
            "" => builder,
            endpoint => builder.with_metadata_endpoint(endpoint),
        }
    } else if remote.access_key_id.is_empty() && remote.secret_access_key.is_empty() {
        // As Milvus does without keys.
        AmazonS3Builder::new().with_skip_signature(true)
    } else {
        AmazonS3Builder::new()
            .with_access_key_id(&remote.access_key_id)
            .with_secret_access_key(&remote.secret_access_key)
    };
    builder
        .with_http_connector(connector)
        .with_endpoint(format!("{scheme}://{host}:{}", remote.port))
        .with_allow_http(!remote.use_ssl)
        .with_virtual_hosted_style_request(remote.has_bucket_in_host)
        .with_bucket_name(&remote.bucket)
        .with_region(region)
        // Not every store with an S3 API has the call that deletes many.
        .with_disable_bulk_delete(true)
        .with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: 3,
            retry_timeout: timeout,
        })
        .build()
}

#[cfg(test)]
mod tests;
