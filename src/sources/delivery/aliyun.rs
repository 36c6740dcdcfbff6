//! Aliyun's push of delivery reports: a JSON array of them.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{TooMany, few};
use crate::{
    base::{Envelope, Micros, Source},
    sources::{Rejected, decode_or_keep},
};

/// Every report in `body`.
pub fn reports(body: &Bytes, received_at: Micros) -> Result<Vec<Envelope>, TooMany> {
    match serde_json::from_slice::<Vec<&RawValue>>(body) {
        Ok(reports) => {
            let report = |raw: &RawValue| body.slice_ref(raw.get().as_bytes());
            let reports = few(reports)?.into_iter().map(report);
            Ok(reports.map(|r| decode_or_keep(Source::Aliyun, &r, received_at)).collect())
        }
        // One alone, or nothing that can be read: then it is kept as it is.
        Err(error) if error.is_data() => Ok(vec![decode_or_keep(Source::Aliyun, body, received_at)]),
        Err(error) => Ok(vec![Rejected::from_json(&error).envelope(Source::Aliyun, body, received_at)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::REJECTED;

    #[test]
    fn a_bad_report_does_not_harm_the_others() {
        let body = Bytes::from_static(br#"[{"biz_id":"1","success":true}, 7, {"biz_id":"2","success":false}]"#);
        let types: Vec<_> = reports(&body, Micros(1)).unwrap().into_iter().map(|e| e.event_type).collect();
        assert_eq!(types, ["message.delivered", REJECTED, "message.failed"]);
        assert_eq!(reports(&Bytes::from_static(b"[{]"), Micros(1)).unwrap()[0].event_type, REJECTED);
        let alone = Bytes::from_static(br#"{"biz_id":"1","success":true}"#);
        assert_eq!(reports(&alone, Micros(1)).unwrap()[0].event_type, "message.delivered");
        let many = Bytes::from(format!("[{}0]", "0,".repeat(2_500)));
        assert_eq!(reports(&many, Micros(1)), Err(TooMany));
    }
}
