//! HTTP as visitors, operators and the person who sets things up speak it: over the same listeners as everybody.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use reqwest::header;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub struct Client {
    http: reqwest::Client,
    /// Where the listeners are, and how URLs made by the API start.
    ingest: String,
    api: String,
    public_url: String,
    key: String,
}

/// A postback as an operator's server sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postback {
    pub url: String,
    /// Content type and body; without one it is a GET.
    pub body: Option<(&'static str, String)>,
}

impl Client {
    pub fn new(ingest: SocketAddr, api: SocketAddr, public_url: &str, key: &str) -> anyhow::Result<Client> {
        let http = reqwest::Client::builder()
            // A landing page is never opened: what the operator would read stands in `Location`.
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(10))
            .build()?;
        Ok(Client {
            http,
            ingest: format!("http://{}", reachable(ingest)),
            api: format!("http://{}", reachable(api)),
            public_url: public_url.to_owned(),
            key: key.to_owned(),
        })
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let request = self.http.get(format!("{}{path}", self.api));
        self.answer(request, "GET", path).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        let request = self.http.post(format!("{}{path}", self.api)).json(body);
        self.answer(request, "POST", path).await
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
        method: &str,
        path: &str,
    ) -> anyhow::Result<T> {
        let response = request.bearer_auth(&self.key).send().await.with_context(|| format!("{method} {path}"))?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            bail!("{method} {path} answered {status}: {text}");
        }
        serde_json::from_str(&text).with_context(|| format!("{method} {path} answered what is not expected: {text}"))
    }

    /// Follows a tracking link up to the redirect, and gives the landing URL.
    pub async fn visit(&self, link: &str, query: &str, agent: &str) -> anyhow::Result<String> {
        let url = format!("{}?{query}", self.local(link));
        let response = self.http.get(url).header(header::USER_AGENT, agent).send().await?;
        let location = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok()).map(str::to_owned);
        location.with_context(|| format!("{link} answered {} without a Location", response.status()))
    }

    /// True: accepted; false: recorded as rejected.
    pub async fn send(&self, postback: &Postback) -> anyhow::Result<bool> {
        let url = self.local(&postback.url);
        let request = match &postback.body {
            None => self.http.get(url),
            Some((kind, body)) => self.http.post(url).header(header::CONTENT_TYPE, *kind).body(body.clone()),
        };
        let response = request.send().await?;
        let status = response.status();
        let answer: Value = serde_json::from_slice(&response.bytes().await?).unwrap_or_default();
        match answer["status"].as_str() {
            Some("accepted") => Ok(true),
            Some("rejected") => Ok(false),
            _ => bail!("a postback was answered with {status}"),
        }
    }

    fn local(&self, url: &str) -> String {
        match url.strip_prefix(&self.public_url) {
            Some(rest) => format!("{}{rest}", self.ingest),
            None => url.to_owned(),
        }
    }
}

/// A listener on all addresses is reached on the loopback one.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback = match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    address
}
