//! How each sender proves that a request is its own: a keyed hash over the bytes as they came.
//!
//! What must hold: nothing is decoded before it is verified; hashes are compared in constant time; a fault says what was
//! wrong with the request and nothing of a secret.

pub mod klaviyo;
pub mod stripe;
pub mod twilio;
