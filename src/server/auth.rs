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
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{App, ServeError};

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

    fn is(&self, given: &str) -> bool {
        constant_time::verify_slices_are_equal(self.0.as_bytes(), given.as_bytes()).is_ok()
    }
}

/// Lets a request through that carries the token: `Authorization: Bearer …`.
pub async fn require(State(app): State<App>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    match given.and_then(|g| g.strip_prefix("Bearer ")) {
        Some(token) if app.token.is(token.trim()) => next.run(request).await,
        _ => {
            let told = "this route wants a token: send the header \"Authorization: Bearer TOKEN\"; the admin's is in \
                        admin.token in the data directory\n";
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], told).into_response()
        }
    }
}
