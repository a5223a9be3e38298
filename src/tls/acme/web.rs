//! How the authority is reached: the HTTP client of the rest of the program, in the shape that `instant_acme` wants.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use reqwest::{Certificate, Client, ClientBuilder};

use super::AcmeError;

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(30);

/// A client for one authority. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Web(Client);

impl Web {
    /// Trusts the roots of a file, or else the system's; where there are none of these, Mozilla's list as it was when
    /// this program was built.
    pub(super) fn new(roots: Option<&Path>) -> Result<Self, AcmeError> {
        // An error means that a provider is installed already, which is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
        let built = match roots {
            Some(path) => settings().tls_certs_only(read_roots(path)?).build(),
            None => crate::roots::client(settings),
        };
        built.map(Self).map_err(AcmeError::Client)
    }
}

/// Whether a file holds roots that an authority could be known by.
pub fn check_roots(path: &Path) -> Result<(), AcmeError> {
    read_roots(path).map(drop)
}

fn settings() -> ClientBuilder {
    Client::builder()
        .no_proxy()
        .https_only(true)
        .timeout(REQUEST)
        .user_agent(concat!("reelhook/", env!("CARGO_PKG_VERSION")))
}

fn read_roots(path: &Path) -> Result<Vec<Certificate>, AcmeError> {
    let unusable = |detail: String| AcmeError::DirectoryCa {
        path: path.to_owned(),
        detail,
    };
    let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let roots = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.to_string()))?;
    if roots.is_empty() {
        return Err(unusable("it wants PEM text".to_owned()));
    }
    Ok(roots)
}

type Answering = Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>>;

impl HttpClient for Web {
    fn request(&self, request: http::Request<BodyWrapper<Bytes>>) -> Answering {
        let client = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            let request = http::Request::from_parts(head, body);
            answer(&client, request).await.map_err(other)
        })
    }
}

async fn answer(client: &Client, request: http::Request<Bytes>) -> reqwest::Result<BytesResponse> {
    let answer = client.execute(request.try_into()?).await?;
    let (head, body) = http::Response::from(answer).into_parts();
    let body = Full::new(body.collect().await?.to_bytes());
    Ok(BytesResponse::from(http::Response::from_parts(head, body)))
}

fn other(error: reqwest::Error) -> instant_acme::Error {
    instant_acme::Error::Other(Box::new(error.without_url()))
}
