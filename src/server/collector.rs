//! The shop's pages and apps: Segment's HTTP tracking API, so that its libraries work with only the host changed.
//!
//! A write key proves the sender, as the user of HTTP basic auth or, as libraries in browsers send it, as `writeKey` in the
//! body. Such a key stands in every page: it says which shop an event belongs to and keeps strangers' noise out, and no
//! more. Pages of other origins may post, and read nothing but that it worked.

use std::io::Read;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use serde_json::json;

use super::{
    App, auth,
    webhooks::{Refusal, receive},
};
use crate::{
    base::Source,
    config::Secret,
    sources::{
        EVENT_LIMIT,
        delivery::{Call, Collected},
    },
};

/// How long a browser may remember that it may post.
const REMEMBERED_SECONDS: &str = "86400";

pub async fn collect(State(app): State<App>, Path(call): Path<String>, request: Request) -> Response {
    let Ok(call) = call.parse::<Call>() else { return StatusCode::NOT_FOUND.into_response() };
    let open = |parts: &Parts, body: &Bytes, now| {
        let body = unpacked(&parts.headers, body)?;
        let collected = Collected::read(call, body);
        let given = user(&parts.headers).or_else(|| collected.write_key()).unwrap_or_default();
        let keys = &app.receivers.write_keys;
        if !auth::is_one_of(keys, &given) {
            return Err(unknown_key(keys));
        }
        collected.envelopes(now).map_err(Refusal::too_many)
    };
    let mut response = receive(&app, Source::Storefront, request, open, Json(json!({"success": true}))).await;
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// Of what is asked in another way than by a post: whether there is such a call at all.
pub async fn otherwise(Path(call): Path<String>) -> StatusCode {
    call.parse::<Call>().map_or(StatusCode::NOT_FOUND, |_| StatusCode::METHOD_NOT_ALLOWED)
}

/// What a browser asks before a page of another origin posts.
pub async fn preflight() -> Response {
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, content-encoding"),
        (header::ACCESS_CONTROL_MAX_AGE, REMEMBERED_SECONDS),
    ];
    (StatusCode::NO_CONTENT, allowed).into_response()
}

/// The user of HTTP basic auth; the password is empty and does not matter.
fn user(headers: &HeaderMap) -> Option<String> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, code) = given.split_once(' ')?;
    let pair = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(code.trim()).ok()).flatten()?;
    let pair = String::from_utf8(pair).ok()?;
    Some(pair.split_once(':').map_or(pair.as_str(), |(user, _)| user).to_owned())
}

fn unknown_key(keys: &[Secret]) -> Refusal {
    let told = if keys.is_empty() {
        "no write key is set: make one up and give it as [storefront] write_keys"
    } else {
        "this is no write key of ours: send one of [storefront] write_keys as the user of HTTP basic auth"
    };
    Refusal { status: StatusCode::UNAUTHORIZED, reason: "write_key", told: told.to_owned() }
}

/// The body as it was before it was packed, which must be no larger than one that was not.
fn unpacked(headers: &HeaderMap, body: &Bytes) -> Result<Bytes, Refusal> {
    let refusal = |status, reason, told: String| Refusal { status, reason, told };
    let encoding = headers.get(header::CONTENT_ENCODING).map(|v| v.to_str().unwrap_or("?").to_ascii_lowercase());
    match encoding.as_deref() {
        None | Some("" | "identity") => Ok(body.clone()),
        Some("gzip") => {
            let mut bytes = Vec::new();
            let read = GzDecoder::new(&body[..]).take(EVENT_LIMIT as u64 + 1).read_to_end(&mut bytes);
            if bytes.len() > EVENT_LIMIT {
                let told = format!("unpacked the body is larger than {EVENT_LIMIT} bytes: send less at once");
                return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, "too_large", told));
            }
            read.map_err(|e| refusal(StatusCode::BAD_REQUEST, "encoding", format!("the body is no gzip: {e}")))?;
            Ok(bytes.into())
        }
        Some(other) => {
            let told = format!("the body is packed as {other:?}: gzip is understood, or none");
            Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoding", told))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn the_user_of_basic_auth_is_the_key() {
        let of = |value: &str| user(&headers(header::AUTHORIZATION, value));
        assert_eq!(of("Basic d2tfMTo=").as_deref(), Some("wk_1"));
        assert_eq!(of("basic d2tfMQ==").as_deref(), Some("wk_1"));
        assert_eq!((of("Bearer d2tfMTo="), of("Basic %"), of("Basic")), (None, None, None));
    }

    #[test]
    fn a_bomb_is_stopped_before_it_is_large() {
        let packed = |size: usize| {
            let mut packer = GzEncoder::new(Vec::new(), Compression::best());
            packer.write_all(&vec![b' '; size]).unwrap();
            Bytes::from(packer.finish().unwrap())
        };
        let gzip = headers(header::CONTENT_ENCODING, "gzip");
        let bomb = packed(64 << 20);
        assert!(bomb.len() < EVENT_LIMIT);
        assert_eq!(unpacked(&gzip, &bomb).err().unwrap().status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(unpacked(&gzip, &packed(EVENT_LIMIT)).map(|b| b.len()).ok(), Some(EVENT_LIMIT));
        let broken = packed(1000).slice(..20);
        assert_eq!(unpacked(&gzip, &broken).err().unwrap().status, StatusCode::BAD_REQUEST);
        let other = headers(header::CONTENT_ENCODING, "br");
        assert_eq!(unpacked(&other, &broken).err().unwrap().status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }

    proptest! {
        #[test]
        fn no_header_and_no_body_breaks_the_readers(value in "[ -~]{0,60}", body: Vec<u8>) {
            drop(user(&headers(header::AUTHORIZATION, &value)));
            drop(unpacked(&headers(header::CONTENT_ENCODING, &value), &Bytes::from(body.clone())));
            drop(unpacked(&headers(header::CONTENT_ENCODING, "gzip"), &Bytes::from(body)));
        }
    }
}
