//! A request before it is sent. It can be sent again, so its body is in memory.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Serialize;

use super::NetError;
use crate::config::Secret;

/// Whether the server may get a request twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Doing it twice is doing it once.
    Idempotent,
    /// Doing it twice does harm: a text message.
    AtMostOnce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
}

/// No `Debug`: headers hold keys, and bodies hold people.
#[derive(Clone)]
pub struct Request {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
    pub(super) delivery: Delivery,
    pub(super) wants_json: bool,
}

impl Request {
    pub fn get(url: impl Into<String>) -> Request {
        Request::new(Method::Get, url.into(), Delivery::Idempotent)
    }

    pub fn post(url: impl Into<String>, delivery: Delivery) -> Request {
        Request::new(Method::Post, url.into(), delivery)
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Request {
        self.headers.push((name, value.into()));
        self
    }

    pub fn basic_auth(self, user: &str, password: &Secret) -> Request {
        let pair = STANDARD.encode(format!("{user}:{}", password.expose()));
        self.header("authorization", format!("Basic {pair}"))
    }

    pub fn body(self, content_type: &str, body: impl Into<Bytes>) -> Request {
        let mut request = self.header("content-type", content_type);
        request.body = body.into();
        request
    }

    pub fn form(self, fields: &[(&str, &str)]) -> Request {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.body("application/x-www-form-urlencoded", body)
    }

    pub fn json(self, content_type: &str, value: &impl Serialize) -> Result<Request, NetError> {
        let body = serde_json::to_vec(value).map_err(|e| NetError::BadRequest(e.to_string()))?;
        Ok(self.body(content_type, body))
    }

    /// Success is JSON. What is not (a proxy's page, half an answer) did not come from whom we asked, or not whole: it
    /// is an answer that was lost.
    pub fn wants_json(mut self) -> Request {
        self.wants_json = true;
        self
    }

    fn new(method: Method, url: String, delivery: Delivery) -> Request {
        Request { method, url, headers: Vec::new(), body: Bytes::new(), delivery, wants_json: false }
    }
}
