//! Records as events of the Trace Event Format, which Perfetto and chrome://tracing read.
//!
//! No event crosses a page of the file. The kernel looks for a fatal signal, and for room on the
//! disk, between pages: so whatever cuts a write short, the file ends behind a whole event.
//!
//! <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>

use std::collections::HashMap;

use super::ring::{Kind, Record};
use crate::config::MonitorKind;
use crate::interest::{Events, word};
use crate::text::cut;
use crate::trace::SpinResult;

/// What the kernel writes at once, or not at all.
const PAGE: u64 = 4096;
/// Longest name that is shown, in bytes: with everything escaped, an event still fits in a page.
const LONGEST: usize = 256;
/// Means that a sleep has no limit.
pub(crate) const FOR_EVER: u64 = u64::MAX;

const MONITORS: [MonitorKind; 4] =
    [MonitorKind::IoUring, MonitorKind::Epoll, MonitorKind::Poll, MonitorKind::Wasi];

/// The number by which a record names a monitor.
pub(crate) fn number_of(monitor: MonitorKind) -> u64 {
    MONITORS.iter().position(|kind| *kind == monitor).map_or(u64::MAX, |at| at as u64)
}

fn monitor_of(number: u64) -> &'static str {
    let kind = usize::try_from(number).ok().and_then(|at| MONITORS.get(at));
    kind.map_or("none", |kind| kind.as_str())
}

/// Text that was not written yet, and where in the file it goes.
#[derive(Default)]
pub(crate) struct Text {
    pub bytes: Vec<u8>,
    /// Bytes of the file before it.
    pub base: u64,
    event: Vec<u8>,
}

impl Text {
    /// Adds one event.
    fn event(&mut self, write: impl FnOnce(&mut Json<'_>)) {
        self.event.clear();
        write(&mut Json(&mut self.event));
        let length = self.event.len() as u64 + 2; // with the comma and the end of the line before it
        let in_page = (self.base + self.bytes.len() as u64) % PAGE;
        if in_page + length > PAGE {
            let padding = usize::try_from(PAGE - in_page).unwrap_or_default();
            self.bytes.resize(self.bytes.len() + padding, b' ');
        }
        self.bytes.extend_from_slice(b",\n");
        self.bytes.extend_from_slice(&self.event);
    }
}

/// An event that is being written.
pub(crate) struct Json<'a>(pub &'a mut Vec<u8>);

impl Json<'_> {
    #[inline(never)] // called from a hundred places, of which none is hot
    pub fn raw(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    #[inline(never)]
    pub fn number(&mut self, number: u64) -> &mut Self {
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut rest = number;
        loop {
            at -= 1;
            #[allow(clippy::cast_possible_truncation, reason = "one digit")]
            let digit = (rest % 10) as u8;
            digits[at] = b'0' + digit;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.0.extend_from_slice(&digits[at..]);
        self
    }

    /// Nanoseconds as the microseconds of the format, exactly.
    fn micros(&mut self, ns: u64) -> &mut Self {
        self.number(ns / 1000);
        let [hundreds, tens, ones] =
            [100, 10, 1].map(|place| b'0' + u8::try_from(ns / place % 10).unwrap_or_default());
        self.0.extend_from_slice(&[b'.', hundreds, tens, ones]);
        self
    }

    /// A string, of which at most [`LONGEST`] bytes are shown.
    #[inline(never)]
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.0.push(b'"');
        let text = cut(text, LONGEST);
        if text.bytes().all(|byte| byte >= 0x20 && !matches!(byte, b'"' | b'\\' | 0x7f)) {
            self.raw(text).0.push(b'"');
            return self;
        }
        for byte in text.bytes() {
            match byte {
                b'"' | b'\\' => self.0.extend_from_slice(&[b'\\', byte]),
                0..0x20 | 0x7f => {
                    let hex = |half: u8| b"0123456789abcdef"[usize::from(half & 15)];
                    self.0.extend_from_slice(b"\\u00");
                    self.0.extend_from_slice(&[hex(byte >> 4), hex(byte)]);
                }
                _ => self.0.push(byte),
            }
        }
        self.0.push(b'"');
        self
    }

    /// `"name":…,"ph":…,"cat":…`
    fn head(&mut self, name: &str, phase: &str, category: &str) -> &mut Self {
        self.raw("{\"name\":").string(name).raw(",\"ph\":\"").raw(phase);
        self.raw("\",\"cat\":\"").raw(category).raw("\"")
    }

    fn at(&mut self, ns: u64) -> &mut Self {
        self.raw(",\"ts\":").micros(ns)
    }

    fn flag(&mut self, flag: bool) -> &mut Self {
        self.raw(if flag { "true" } else { "false" })
    }
}

/// A name that the viewer shows for a track, or for the process.
pub(crate) fn name_of(json: &mut Json<'_>, what: &str, pid: u32, tid: u64, name: &str) {
    json.raw("{\"name\":\"").raw(what).raw("\",\"ph\":\"M\",\"pid\":").number(pid.into());
    json.raw(",\"tid\":").number(tid).raw(",\"args\":{\"name\":").string(name).raw("}}");
}

/// Who writes events of one context.
pub(crate) struct Track {
    pub tid: u64,
    /// `,"pid":…,"tid":…`
    place: String,
    pid: u32,
    name: String,
    /// Names of handlers, by slot.
    names: HashMap<u64, String>,
}

/// A wake-up by another thread, of which two tracks tell.
pub(crate) struct Wake {
    pub by: u64,
    pub number: u64,
}

fn place_of(pid: u32, tid: u64) -> String {
    format!(",\"pid\":{pid},\"tid\":{tid}")
}

impl Track {
    pub fn new(pid: u32, tid: u64, name: String) -> Self {
        Self { tid, place: place_of(pid, tid), pid, name, names: HashMap::new() }
    }

    /// The track shows itself.
    pub fn begin(&self, text: &mut Text) {
        text.event(|json| name_of(json, "thread_name", self.pid, self.tid, &self.name));
    }

    /// …and says how much there was of it.
    pub fn end(&self, text: &mut Text, at: u64, events: u64, missing: u64) {
        text.event(|json| {
            json.head("trace ended", "i", "trace").at(at).raw(&self.place).raw(",\"s\":\"t\"");
            json.raw(",\"args\":{\"events\":").number(events);
            json.raw(",\"dropped\":").number(missing).raw("}}");
        });
    }

    /// Records are missing before this time.
    pub fn gap(&self, text: &mut Text, at: u64, dropped: u64) {
        text.event(|json| {
            json.head("dropped", "i", "trace").at(at).raw(&self.place).raw(",\"s\":\"t\"");
            json.raw(",\"args\":{\"dropped\":").number(dropped).raw("}}");
        });
    }

    /// The track of another thread.
    pub fn name_other(&self, text: &mut Text, tid: u64, name: &str) {
        text.event(|json| name_of(json, "thread_name", self.pid, tid, name));
    }

    /// Who woke this context, for a record of [`Kind::Woken`].
    pub fn waker(record: &Record) -> Option<u64> {
        (Kind::of(record) == Some(Kind::Woken) && record[2] != 0).then_some(record[3])
    }

    /// One record. `wake` is of the thread that [`Track::waker`] named.
    pub fn write(&mut self, text: &mut Text, record: &Record, wake: Option<&Wake>) {
        let Some(kind) = Kind::of(record) else { return };
        match kind {
            Kind::Name => self.learn(record),
            Kind::Woken => self.woken(text, record, wake),
            Kind::Window => text.event(|json| {
                let name = format!("spin window of {}", self.name);
                json.head(&name, "C", "spin").at(record[1]).raw(&self.place);
                json.raw(",\"args\":{\"ns\":").number(record[3]).raw("}}");
            }),
            Kind::Submitted | Kind::Completed | Kind::Joined | Kind::Left | Kind::Monitor => {
                self.instant(text, kind, record);
            }
            _ => self.slice(text, kind, record),
        }
    }

    fn learn(&mut self, record: &Record) {
        let bytes: Vec<u8> = record[1..].iter().flat_map(|word| word.to_le_bytes()).collect();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let name = String::from_utf8_lossy(&bytes[..end]).into_owned();
        self.names.insert(record[0] >> 8, name);
    }

    fn slice(&self, text: &mut Text, kind: Kind, record: &Record) {
        let [_, begin, end, x, y, z] = *record;
        let (category, name) = match kind {
            Kind::Turn => ("turn", "turn"),
            Kind::Prepare => ("turn", "prepare"),
            Kind::Check => ("turn", "check"),
            Kind::Dispatch => ("turn", "dispatch"),
            Kind::Spin => ("spin", "spin"),
            Kind::Sleep => ("wait", "sleep"),
            Kind::Look => ("wait", "look"),
            Kind::OuterSleep => ("wait", "outer sleep"),
            Kind::BottomHalf => ("dispatch", "bottom half"),
            Kind::Job => ("dispatch", "job"),
            Kind::Timer => ("dispatch", "timer"),
            Kind::Completion => ("dispatch", "completion"),
            _ => ("dispatch", ""),
        };
        let own = self.names.get(&z).filter(|_| kind == Kind::Handler);
        let of_fd;
        let name = match own {
            Some(own) => own.as_str(),
            None if name.is_empty() => {
                of_fd = format!("fd {x}");
                &of_fd
            }
            None => name,
        };
        text.event(|json| {
            json.head(name, "X", category).at(begin);
            json.raw(",\"dur\":").micros(end.saturating_sub(begin)).raw(&self.place);
            json.raw(",\"args\":{");
            match kind {
                Kind::Turn => {
                    json.raw("\"blocking\":").flag(x != 0).raw(",\"progress\":").flag(y != 0);
                }
                Kind::Dispatch => {
                    json.raw("\"progress\":").flag(y != 0);
                }
                Kind::Spin => {
                    let result = SpinResult::from_u64(y).as_str();
                    json.raw("\"window_ns\":").number(x).raw(",\"result\":").string(result);
                    json.raw(",\"rounds\":").number(z);
                }
                Kind::Sleep | Kind::OuterSleep => {
                    if x != FOR_EVER {
                        json.raw("\"timeout_ns\":").number(x).raw(",");
                    }
                    json.raw("\"ready\":").number(y);
                }
                Kind::Look | Kind::Check => {
                    json.raw("\"ready\":").number(y);
                }
                Kind::Handler => {
                    json.raw("\"fd\":").number(x);
                    if let Some(name) = own {
                        json.raw(",\"name\":").string(name);
                    }
                    json.raw(",\"callbacks\":\"").callbacks(y).raw("\",\"events\":\"").events(y);
                    json.raw("\"");
                }
                _ => {}
            }
            json.raw("}}");
        });
    }

    fn instant(&self, text: &mut Text, kind: Kind, record: &Record) {
        let [_, at, _, x, y, _] = *record;
        let (category, name) = match kind {
            Kind::Submitted => ("io", "submitted"),
            Kind::Completed => ("io", "completed"),
            Kind::Joined => ("spin", "joined the spin list"),
            Kind::Left => ("spin", "left the spin list"),
            _ => ("monitor", "monitor"),
        };
        text.event(|json| {
            json.head(name, "i", category).at(at).raw(&self.place).raw(",\"s\":\"t\",\"args\":{");
            match kind {
                Kind::Submitted | Kind::Completed => {
                    json.raw("\"").raw(name).raw("\":").number(x);
                    json.raw(",\"in_flight\":").number(y);
                }
                Kind::Joined | Kind::Left => {
                    json.raw("\"fd\":").number(x);
                }
                _ => {
                    json.raw("\"from\":").string(monitor_of(x));
                    json.raw(",\"to\":").string(monitor_of(y));
                }
            }
            json.raw("}}");
        });
    }

    /// An arrow from who notified to the turn that took it. Arrows stick to slices, so that the
    /// notifying thread gets one: it is called a nanosecond long, to lie within any other.
    fn woken(&self, text: &mut Text, record: &Record, wake: Option<&Wake>) {
        let [_, taken, sent, ..] = *record;
        if let Some(Wake { by, number }) = wake {
            let (pid, place) = (self.pid, place_of(self.pid, *by));
            let flow = |json: &mut Json<'_>, phase: &str, at: u64, place: &str| {
                json.head("wake-up", phase, "wake").at(at).raw(place);
                // Of this process alone, also where the traces of several are shown together.
                json.raw(&format!(",\"id\":\"0x{pid:x}{number:08x}\""));
            };
            text.event(|json| {
                json.head("notify", "X", "wake").at(sent).raw(",\"dur\":0.001").raw(&place);
                json.raw(",\"args\":{\"context\":").number(self.tid).raw("}}");
            });
            text.event(|json| {
                flow(json, "s", sent, &place);
                json.raw("}");
            });
            text.event(|json| {
                flow(json, "f", taken, &self.place);
                json.raw(",\"bp\":\"e\"}");
            });
        }
        text.event(|json| {
            json.head("woken", "i", "wake").at(taken).raw(&self.place).raw(",\"s\":\"t\"");
            json.raw(",\"args\":{");
            if wake.is_some() {
                json.raw("\"after_ns\":").number(taken.saturating_sub(sent));
            }
            json.raw("}}");
        });
    }
}

impl Json<'_> {
    fn callbacks(&mut self, pending: u64) -> &mut Self {
        let names = [
            (word::RUN_READY, "pollReady"),
            (word::RUN_READ, "read"),
            (word::RUN_WRITE, "write"),
            (word::RUN_PRIORITY, "priority"),
        ];
        let named = names.into_iter().filter(|(bit, _)| pending & u64::from(*bit) != 0);
        self.joined(named.map(|(_, name)| name))
    }

    fn events(&mut self, pending: u64) -> &mut Self {
        let bits = u32::try_from(pending & u64::from(word::EVENTS)).unwrap_or_default();
        self.joined(Events::from_bits_truncate(bits).iter_names().map(|(name, _)| name))
    }

    fn joined<'n>(&mut self, names: impl Iterator<Item = &'n str>) -> &mut Self {
        for (at, name) in names.enumerate() {
            self.raw(if at == 0 { "" } else { "|" }).raw(name);
        }
        self
    }
}
