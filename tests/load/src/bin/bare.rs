//! The floor: an axum handler that takes a postback or a click and answers, and does nothing else.

use axum::{
    Router,
    extract::{Path, RawQuery},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::IntoResponse,
    routing::get,
};

const ANSWER: &str = r#"{"status":"accepted","hit":"06h04jgwtdxkh38h8q73vxkpc1","receipt":"0-123456"}"#;

async fn postback(Path(token): Path<String>, RawQuery(query): RawQuery) -> impl IntoResponse {
    if token.is_empty() || query.is_none() {
        return (StatusCode::NOT_FOUND, HeaderMap::new(), "");
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-clickback-receipt", HeaderValue::from_static("0-123456"));
    (StatusCode::OK, headers, ANSWER)
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    axum::serve(listener, Router::new().route("/post-back/{token}", get(postback))).await
}
