//! The address of a provider's API, or our own as others know it, to which paths are joined.

use std::{borrow::Cow, fmt};

use url::Url;

/// `http` or `https`, a host, perhaps a port and a path; no user, query or fragment, and no slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(Cow<'static, str>);

impl BaseUrl {
    pub const KLAVIYO: BaseUrl = BaseUrl(Cow::Borrowed("https://a.klaviyo.com"));
    pub const STRIPE: BaseUrl = BaseUrl(Cow::Borrowed("https://api.stripe.com"));
    pub const TWILIO: BaseUrl = BaseUrl(Cow::Borrowed("https://api.twilio.com"));

    /// `None` where `text` is no such address.
    pub fn parse(text: &str) -> Option<BaseUrl> {
        let url = Url::parse(text).ok()?;
        let plain =
            url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        let web = matches!(url.scheme(), "http" | "https") && url.host().is_some();
        (web && plain).then(|| BaseUrl(Cow::Owned(url.as_str().trim_end_matches('/').to_owned())))
    }

    /// The address of `path`, which starts with a slash and is already encoded.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
