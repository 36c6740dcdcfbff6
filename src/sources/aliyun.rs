//! Aliyun's delivery reports (SmsReport): one object a message and number.
//!
//! A report is known by what it says: one `biz_id` may name a message to many numbers, and a number is not for an id.

use bytes::Bytes;
use chrono::{FixedOffset, NaiveDateTime, TimeZone};
use serde_json::Value;

use super::{Rejected, short, text};
use crate::base::{Digest, Envelope, Micros, Source, Via};

/// Reports tell the time of China, which has one zone and no summer time.
const CHINA_SECONDS: i32 = 8 * 3600;

pub(super) fn decode(body: &Bytes, received_at: Micros) -> Result<Envelope, Rejected> {
    let report: Value = serde_json::from_str(text(body)?).map_err(|e| Rejected::from_json(&e))?;
    if !report.is_object() {
        return Err(Rejected::NotAnObject);
    }
    let digest = Digest::of(&report).map_err(|e| Rejected::from_json(&e))?;
    let biz_id = report["biz_id"].as_str().filter(|id| !id.is_empty()).ok_or(Rejected::Missing { field: "biz_id" })?;
    let biz_id = short(biz_id).ok_or(Rejected::BadField { field: "biz_id", why: "is longer than 255 bytes" })?;
    let delivered = match &report["success"] {
        Value::Bool(success) => *success,
        Value::String(word) => word.eq_ignore_ascii_case("true"),
        Value::Null => return Err(Rejected::Missing { field: "success" }),
        _ => return Err(Rejected::BadField { field: "success", why: "is neither true nor false" }),
    };
    let time = report["report_time"].as_str().and_then(china_time);
    Ok(Envelope {
        source: Source::Aliyun,
        event_id: short(&format!("{biz_id}:{digest}")).unwrap_or_else(|| digest.to_string()),
        event_type: if delivered { "message.delivered" } else { "message.failed" }.to_owned(),
        api_version: None,
        account: None,
        livemode: true,
        occurred_at: time.unwrap_or(received_at),
        received_at,
        via: Via::File,
        object_type: Some("message".to_owned()),
        object_id: Some(biz_id),
        person_hint: None,
        digest,
        payload: body.clone(),
    })
}

/// From `2026-08-01 17:30:00`.
fn china_time(text: &str) -> Option<Micros> {
    let local = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").ok()?;
    let at = FixedOffset::east_opt(CHINA_SECONDS)?.from_local_datetime(&local).single()?;
    Some(Micros(at.timestamp_micros()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(phone: &str, success: Value) -> Value {
        json!({"phone_number": phone, "send_time": "2026-08-01 17:29:58", "report_time": "2026-08-01 17:30:00",
            "success": success, "err_code": "DELIVERED", "err_msg": "", "sms_size": "1", "biz_id": "900^0"})
    }

    fn read(report: &Value) -> Result<Envelope, Rejected> {
        decode(&Bytes::from(report.to_string()), Micros(7))
    }

    #[test]
    fn reports_of_one_message_to_many_numbers_are_many_events() {
        let one = read(&report("13800000001", true.into())).unwrap();
        assert_eq!((one.event_type.as_str(), one.object_id.as_deref()), ("message.delivered", Some("900^0")));
        assert_eq!(one.occurred_at.to_string(), "2026-08-01T09:30:00Z", "China is eight hours ahead");
        assert!(!one.event_id.contains("13800000001"));
        assert_eq!(one.identity().key(), read(&report("13800000001", true.into())).unwrap().identity().key());
        assert_ne!(one.identity().key(), read(&report("13800000002", true.into())).unwrap().identity().key());
        assert_eq!(read(&report("13800000001", "false".into())).unwrap().event_type, "message.failed");
    }

    #[test]
    fn what_is_no_report_says_why() {
        let reason = |value: Value| read(&value).unwrap_err().to_string();
        assert_eq!(reason(json!({"success": true})), "it has no \"biz_id\"");
        assert_eq!(reason(json!({"biz_id": "1"})), "it has no \"success\"");
        assert_eq!(reason(report("1", json!(1))), "its \"success\" is neither true nor false");
    }
}
