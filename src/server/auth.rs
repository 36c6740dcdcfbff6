//! Who may ask what. One role so far: the admin, whose token is made at the first start.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::{constant_time, rand};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{App, ServeError};
use crate::config::Secret;

/// A secret that opens every route.
#[derive(Clone)]
pub struct AdminToken(String);

impl AdminToken {
    /// The token in `DATA/admin.token`, made there (mode 0600) where there is none.
    pub fn of(dir: &Path) -> Result<AdminToken, ServeError> {
        let path = dir.join("admin.token");
        let failed = |path: &PathBuf, source| ServeError::File { path: path.clone(), source };
        match fs::read_to_string(&path) {
            Ok(text) if text.trim().len() >= 32 => Ok(AdminToken(text.trim().to_owned())),
            Ok(_) => Err(ServeError::BadToken { path }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let mut bytes = [0u8; 24];
                rand::fill(&mut bytes).map_err(|_| ServeError::NoRandom)?;
                let token = hex::encode(bytes);
                let mut options = fs::OpenOptions::new();
                let file = options.write(true).create_new(true).mode(0o600).open(&path);
                let mut file = file.map_err(|e| failed(&path, e))?;
                writeln!(file, "{token}").and_then(|()| file.sync_all()).map_err(|e| failed(&path, e))?;
                Ok(AdminToken(token))
            }
            Err(e) => Err(failed(&path, e)),
        }
    }

    pub fn is(&self, given: &str) -> bool {
        is_same(&self.0, given)
    }
}

/// Whether it is any of them.
pub fn is_one_of(secrets: &[Secret], given: &str) -> bool {
    secrets.iter().any(|secret| is_same(secret.expose(), given))
}

/// In a time that tells nothing of how much of it is the same.
fn is_same(secret: &str, given: &str) -> bool {
    constant_time::verify_slices_are_equal(secret.as_bytes(), given.as_bytes()).is_ok()
}

/// The token of `Authorization: Bearer TOKEN`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

/// Sends away who has none; `which`: where the right ones are.
pub fn wanted(which: &str) -> Response {
    let told = format!("this route wants a token: send the header \"Authorization: Bearer TOKEN\"; {which}\n");
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], told).into_response()
}

/// Lets a request through that carries the admin's token.
pub async fn require(State(app): State<App>, request: Request, next: Next) -> Response {
    match bearer(request.headers()) {
        Some(token) if app.token.is(token) => next.run(request).await,
        _ => wanted("the admin's is in admin.token in the data directory"),
    }
}
