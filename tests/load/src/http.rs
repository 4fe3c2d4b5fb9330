//! The few API calls that set a run up and read its result.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[derive(Clone)]
pub struct Api {
    pub address: String,
    pub key: String,
}

impl Api {
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call("GET", path, "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call("POST", path, &body.to_string()).await
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let answer = self.text(method, path, body).await?;
        serde_json::from_str(&answer).with_context(|| format!("{method} {path}: {answer}"))
    }

    /// The value of a counter, over all of its labels.
    pub async fn counter(&self, name: &str) -> Result<f64> {
        let page = self.text("GET", "/metrics", "").await?;
        let of_it =
            page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        Ok(of_it.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    async fn text(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let mut stream = TcpStream::connect(&self.address).await?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            self.key,
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let text = String::from_utf8(answer)?;
        let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
        if !head.starts_with("HTTP/1.1 2") {
            bail!("{method} {path}: {text}");
        }
        Ok(if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            unchunked(body)
        } else {
            body.to_owned()
        })
    }
}

fn unchunked(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        match usize::from_str_radix(size.trim(), 16) {
            Ok(size) if size > 0 && size <= rest.len() => {
                out.push_str(&rest[..size]);
                body = rest[size..].trim_start_matches("\r\n");
            }
            _ => break,
        }
    }
    out
}
