//! HTTP/1.1 for the object store, on the hyper that everything else here runs on.

use std::fmt;

use async_trait::async_trait;
use http_body_util::BodyExt;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::{Connect, HttpConnector as Tcp};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};

use super::clock::StoreClock;

/// Makes clients. Answers of the store set its clock, those of services that give out roles do not.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) kind: Kind,
    /// Of the store.
    pub(super) host: String,
    pub(super) clock: StoreClock,
}

#[derive(Debug)]
pub(super) enum Kind {
    Plain,
    /// Needs certificates of the system. Takes addresses with `http:`, too: the services that give
    /// out the roles of a machine have no others. The store's own address says `https:`.
    Tls,
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let builder = Client::builder(TokioExecutor::new());
        let (host, clock) = (self.host.clone(), self.clock.clone());
        match self.kind {
            Kind::Plain => {
                Ok(HttpClient::new(Service { client: builder.build(Tcp::new()), host, clock }))
            }
            Kind::Tls => {
                let certified = HttpsConnectorBuilder::new().with_native_roots();
                let certified = certified.map_err(|error| object_store::Error::Generic {
                    store: "S3",
                    source: Box::new(error),
                })?;
                let connector = certified.https_or_http().enable_http1().build();
                Ok(HttpClient::new(Service { client: builder.build(connector), host, clock }))
            }
        }
    }
}

struct Service<C> {
    client: Client<C, HttpRequestBody>,
    host: String,
    clock: StoreClock,
}

impl<C> fmt::Debug for Service<C> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Service")
    }
}

#[async_trait]
impl<C: Connect + Clone + Send + Sync + 'static> HttpService for Service<C> {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_store = request.uri().host() == Some(&*self.host);
        let response = self.client.request(request).await.map_err(of_client)?;
        if is_store {
            self.clock.hear(response.headers());
        }
        Ok(response.map(|body| {
            HttpResponseBody::new(
                body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error)),
            )
        }))
    }
}

/// The error's kind decides whether the store tries again.
fn of_client(error: Error) -> HttpError {
    let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
    HttpError::new(kind, error)
}
