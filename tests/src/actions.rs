//! The actions of users, named as they would name them.

use reqwest::{Method, header};
use serde_json::{Value, json};

use crate::server::Server;

/// An HTTP answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: header::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub async fn of(request: reqwest::RequestBuilder) -> Answer {
        Answer::try_of(request).await.unwrap()
    }

    pub async fn try_of(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.bytes().await?.to_vec() })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {} {}", self.status, self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }

    /// The place of what was recorded in the log.
    #[track_caller]
    pub fn receipt(&self) -> String {
        let receipt = self.header("x-clickback-receipt");
        receipt.unwrap_or_else(|| panic!("no receipt: {} {}", self.status, self.text())).to_owned()
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// The answer to a postback: `accepted`, `rejected`.
    #[track_caller]
    pub fn said(&self) -> String {
        self.json()["status"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn hit(&self) -> String {
        self.json()["hit"].as_str().unwrap_or_else(|| panic!("no hit: {}", self.text())).to_owned()
    }
}

#[derive(Clone, Debug)]
pub struct Account {
    pub id: String,
    pub token: String,
    pub json: Value,
}

#[derive(Clone, Debug)]
pub struct Link {
    pub id: String,
    pub url: String,
}

#[derive(Clone, Debug)]
pub struct Click {
    pub id: String,
    pub location: url::Url,
    pub receipt: String,
}

impl Click {
    /// A parameter of the page that the visitor was sent to.
    pub fn landing(&self, name: &str) -> Option<String> {
        self.location.query_pairs().find(|(n, _)| n == name).map(|(_, v)| v.into_owned())
    }
}

impl Server {
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.call_as(&self.key, method, path, body).await
    }

    pub async fn call_as(&self, key: &str, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.api)).bearer_auth(key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = Answer::of(request).await;
        if let (Some(cluster), false) = (self.folder.cluster(), method == Method::GET) {
            cluster.until_in_force(&self.http).await;
        }
        answer
    }

    pub async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, None).await.expect(200).json()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.call(Method::POST, path, Some(body)).await;
        assert!((200..300).contains(&answer.status), "{} {}", answer.status, answer.text());
        answer.json()
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Value {
        self.call(Method::PATCH, path, Some(body)).await.expect(200).json()
    }

    /// Asserts the status and the stable code of an error, and that it says what to do.
    pub async fn refused(&self, method: Method, path: &str, body: Option<&Value>, status: u16) -> Value {
        let answer = self.call(method, path, body).await.expect(status);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let problem = answer.json();
        assert_eq!(problem["status"], status);
        assert!(problem["code"].is_string() && problem["title"].is_string(), "{problem}");
        problem
    }

    pub async fn create_account(&self, settings: Value) -> Account {
        let mut body = json!({ "name": "An account", "program": "generic" });
        for (name, value) in settings.as_object().unwrap() {
            body[name] = value.clone();
        }
        let made = self.call(Method::POST, "/v1/accounts", Some(&body)).await.expect(201).json();
        let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("no {name}: {made}")).to_owned();
        Account { id: text("id"), token: text("token"), json: made.clone() }
    }

    pub async fn change_account(&self, account: &Account, changes: Value) -> Value {
        self.patch(&format!("/v1/accounts/{}", account.id), &changes).await
    }

    pub async fn create_link(&self, account: &Account, destination: &str) -> Link {
        let body = json!({ "name": "A link", "destination": destination });
        let path = format!("/v1/accounts/{}/links", account.id);
        let made = self.call(Method::POST, &path, Some(&body)).await.expect(201).json();
        Link { id: made["id"].as_str().unwrap().to_owned(), url: made["url"].as_str().unwrap().to_owned() }
    }

    /// An account of the program `generic` with one link.
    pub async fn account_with_link(&self, settings: Value) -> (Account, Link) {
        let account = self.create_account(settings).await;
        let link = self.create_link(&account, "https://casino.example/welcome").await;
        (account, link)
    }

    pub async fn open_link(&self, link: &Link, query: &str) -> Answer {
        Answer::of(self.http.get(format!("{}/c/{}?{query}", self.ingest, link.id))).await
    }

    /// A visitor follows the link; the click was recorded.
    pub async fn follow_link(&self, link: &Link, query: &str) -> Click {
        let answer = self.open_link(link, query).await.expect(302);
        let id = answer.header("x-clickback-click").expect("a click id").to_owned();
        let location = answer.header("location").unwrap().parse().unwrap();
        Click { id, location, receipt: answer.receipt() }
    }

    /// The operator's server calls the postback URL of the account.
    pub async fn postback(&self, account: &Account, query: &str) -> Answer {
        Answer::of(self.http.get(format!("{}/post-back/{}?{query}", self.ingest, account.token))).await
    }

    pub async fn postback_body(&self, account: &Account, query: &str, kind: &str, body: impl Into<Vec<u8>>) -> Answer {
        let url = format!("{}/post-back/{}?{query}", self.ingest, account.token);
        Answer::of(self.http.post(url).header("content-type", kind).body(body.into())).await
    }

    /// A postback that has to be accepted; gives its receipt.
    pub async fn accepted(&self, account: &Account, query: &str) -> Answer {
        let answer = self.postback(account, query).await.expect(200);
        assert_eq!(answer.said(), "accepted", "{}", answer.text());
        answer
    }

    /// A report or list, once it shows everything that was acknowledged up to now.
    pub async fn latest(&self, path: &str) -> Value {
        let join = if path.contains('?') { '&' } else { '?' };
        self.get(&format!("{path}{join}after=latest&wait=20s")).await
    }

    pub async fn conversions_report(&self, query: &str) -> Value {
        self.latest(&format!("/v1/reports/conversions?{query}")).await
    }

    pub async fn postbacks_report(&self, query: &str) -> Value {
        self.latest(&format!("/v1/reports/postbacks?{query}")).await
    }

    /// The row of one hit in the postback report.
    pub async fn hit(&self, answer: &Answer) -> Value {
        self.latest(&format!("/v1/hits/{}", answer.hit())).await
    }

    /// Sends a postback and gives its row as it stands after its decision.
    pub async fn decided(&self, account: &Account, query: &str) -> Value {
        let answer = self.postback(account, query).await.expect(200);
        self.hit(&answer).await
    }
}
