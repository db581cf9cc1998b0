//! Points of tracing, as JavaScript takes them after a turn.

use fdmon::{Noted, TracePoint};
use napi::bindgen_prelude::BigInt;
use napi_derive::napi;

/// What happened, and of the fields those that belong to it.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct Point {
    /// A bit of the kinds that JavaScript asks for.
    pub kind: u32,
    pub time_ns: BigInt,
    pub window_ns: Option<f64>,
    pub spent_ns: Option<f64>,
    pub result: Option<&'static str>,
    pub from_ns: Option<f64>,
    pub to_ns: Option<f64>,
    pub fd: Option<i32>,
    pub joined: Option<bool>,
    pub from: Option<&'static str>,
    pub to: Option<&'static str>,
    pub reason: Option<String>,
}

#[allow(clippy::cast_precision_loss, reason = "a window is a day at most")]
impl From<Noted> for Point {
    fn from((at, point): Noted) -> Self {
        let kind = u32::from(point.kind().bits());
        let of = Self {
            kind,
            time_ns: BigInt::from(at),
            window_ns: None,
            spent_ns: None,
            result: None,
            from_ns: None,
            to_ns: None,
            fd: None,
            joined: None,
            from: None,
            to: None,
            reason: None,
        };
        match point {
            TracePoint::SpinBegin { window_ns } => Self { window_ns: Some(window_ns as f64), ..of },
            TracePoint::SpinEnd { window_ns, spent_ns, result } => Self {
                window_ns: Some(window_ns as f64),
                spent_ns: Some(spent_ns as f64),
                result: Some(result.as_str()),
                ..of
            },
            TracePoint::Window { from_ns, to_ns } => {
                Self { from_ns: Some(from_ns as f64), to_ns: Some(to_ns as f64), ..of }
            }
            TracePoint::Joined { fd } => Self { fd: Some(fd), joined: Some(true), ..of },
            TracePoint::Left { fd } => Self { fd: Some(fd), joined: Some(false), ..of },
            TracePoint::Monitor { from, to, reason } => Self {
                from: Some(from.as_str()),
                to: Some(to.as_str()),
                reason: Some(reason),
                ..of
            },
            _ => of,
        }
    }
}
