//! A store with an S3 API in memory, which misbehaves on request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;

pub(super) const BUCKET: &str = "a-bucket";

/// What it does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Serves,
    /// It takes the call and never answers.
    Hangs,
    /// It answers everything so.
    Answers(StatusCode),
    /// It lists so many objects and says that these are all.
    ListsInPart(usize),
}

pub(super) struct StandIn {
    pub(super) port: u16,
    inner: Arc<Inner>,
}

struct Inner {
    mood: Mutex<Mood>,
    /// How far its clock is ahead of ours, seconds.
    ahead_s: Mutex<i64>,
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Tokens that calls came with.
    tokens: Mutex<Vec<String>>,
}

impl StandIn {
    pub(super) async fn start() -> StandIn {
        let inner = Arc::new(Inner {
            mood: Mutex::new(Mood::Serves),
            ahead_s: Mutex::default(),
            objects: Mutex::default(),
            tokens: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await });
        StandIn { port, inner }
    }

    pub(super) fn is(&self, mood: Mood) {
        *self.inner.mood.lock() = mood;
    }

    pub(super) fn is_ahead(&self, seconds: i64) {
        *self.inner.ahead_s.lock() = seconds;
    }

    pub(super) fn put(&self, key: &str) {
        self.inner.objects.lock().insert(key.to_owned(), b"rows".to_vec());
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.inner.objects.lock().keys().cloned().collect()
    }

    pub(super) fn tokens(&self) -> Vec<String> {
        self.inner.tokens.lock().clone()
    }
}

impl Inner {
    fn now(&self) -> SystemTime {
        let ahead_s = *self.ahead_s.lock();
        let ahead = Duration::from_secs(ahead_s.unsigned_abs());
        if ahead_s < 0 { SystemTime::now() - ahead } else { SystemTime::now() + ahead }
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    // The service that gives out the roles of a machine.
    if path == "/latest/api/token" {
        return "session".into_response();
    }
    if let Some(role) = path.strip_prefix("/latest/meta-data/iam/security-credentials/") {
        return match role {
            "" => "a-role".into_response(),
            _ => concat!(
                r#"{"AccessKeyId":"k","SecretAccessKey":"s","Token":"of-the-role","#,
                r#""Expiration":"2100-01-01T00:00:00Z","Code":"Success"}"#
            )
            .into_response(),
        };
    }
    if let Some(token) = request.headers().get("x-amz-security-token") {
        inner.tokens.lock().push(token.to_str().unwrap_or_default().to_owned());
    }
    let mood = *inner.mood.lock();
    let listed_max = match mood {
        Mood::Serves => usize::MAX,
        Mood::ListsInPart(n) => n,
        Mood::Answers(status) => {
            let text = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";
            return (status, text).into_response();
        }
        Mood::Hangs => std::future::pending().await,
    };
    let mut response = serve(&inner, &path, listed_max, &request);
    let date = httpdate::fmt_http_date(inner.now());
    response.headers_mut().insert(header::DATE, date.parse().expect("a date"));
    response
}

fn serve(inner: &Inner, path: &str, listed_max: usize, request: &Request) -> Response {
    let mut objects = inner.objects.lock();
    let Some(below) = path.strip_prefix(&format!("/{BUCKET}")) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let key = below.trim_start_matches('/');
    match (request.method(), key) {
        (&Method::GET, "") => {
            let query = request.uri().query().unwrap_or_default();
            let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix="));
            let prefix = prefix.unwrap_or_default().replace("%2F", "/");
            list(inner.now(), &objects, &prefix, listed_max)
        }
        (&Method::DELETE, key) => {
            objects.remove(key);
            StatusCode::NO_CONTENT.into_response()
        }
        (&Method::PUT, key) => match source(request.headers()) {
            Some(from) => match objects.get(&from).cloned() {
                Some(content) => {
                    objects.insert(key.to_owned(), content);
                    "<CopyObjectResult><ETag>\"1\"</ETag></CopyObjectResult>".into_response()
                }
                None => StatusCode::NOT_FOUND.into_response(),
            },
            None => StatusCode::NOT_IMPLEMENTED.into_response(),
        },
        (_, _) => StatusCode::NOT_IMPLEMENTED.into_response(),
    }
}

/// What is to be copied.
fn source(headers: &HeaderMap) -> Option<String> {
    let from = headers.get("x-amz-copy-source")?.to_str().ok()?;
    let from = from.trim_start_matches('/').strip_prefix(BUCKET)?;
    Some(from.trim_start_matches('/').replace("%2F", "/"))
}

fn list(
    now: SystemTime,
    objects: &BTreeMap<String, Vec<u8>>,
    prefix: &str,
    n_max: usize,
) -> Response {
    // RFC 3339, whatever the second: only the day matters here.
    let modified = humantime::format_rfc3339_seconds(now);
    let found = objects.iter().filter(|(key, _)| key.starts_with(prefix)).take(n_max);
    let contents: String = found
        .map(|(key, content)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>{modified}</LastModified>\
                 <ETag>\"1\"</ETag><Size>{}</Size></Contents>",
                content.len()
            )
        })
        .collect();
    let body =
        format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>");
    (StatusCode::OK, Body::from(body)).into_response()
}
