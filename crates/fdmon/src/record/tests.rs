//! Files on which several contexts write, one of them after the file had its end; and the text.

use std::path::{Path, PathBuf};

use super::json::{Json, Text, Track};
use super::*;

/// A file that goes with the test.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("fdmon-unit-{}-{name}.json", std::process::id())))
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn traced_by_environment(file: &Path) -> AioContext {
    let environment = Some(file.to_owned());
    AioContext::builder().trace_by_environment(environment).build().unwrap()
}

/// SPEC 54
#[test]
fn a_file_that_the_environment_names_goes_on_after_its_end() {
    let file = Temporary::new("environment");
    for round in 1..=3 {
        let ctx = traced_by_environment(&file.0);
        ctx.poll(false).unwrap();
        assert!(ctx.trace("nowhere.json").unwrap_err().is_in_use());
        drop(ctx);
        let text = file.text();
        assert!(text.starts_with("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[{"));
        assert!(text.trim_end().ends_with("\"dropped\":\"0\"}}"), "{text}");
        assert_eq!(text.matches("\"name\":\"turn\"").count(), round);
        assert_eq!(text.matches("otherData").count(), 1);
        assert_eq!(text.matches("thread_name").count(), round);
    }
}

/// SPEC 13, 54
#[test]
fn an_environment_that_names_what_cannot_be_opened_is_an_error_of_the_context() {
    let builder = AioContext::builder().trace_by_environment(Some("/proc/no/such.json".into()));
    let error = builder.build().unwrap_err();
    assert!(error.is_syscall(), "{error}");
    assert!(error.to_string().starts_with("FDMON_TRACE = \"/proc/no/such.json\""), "{error}");
    let none = AioContext::builder().trace_by_environment(Some(PathBuf::new()));
    assert!(none.build().is_ok(), "empty is the same as unset");
}

/// SPEC 54
#[test]
fn no_event_crosses_a_page_whatever_its_length() {
    let mut text = Text::default();
    text.base = 512;
    let mut random = fastrand::Rng::with_seed(7);
    let mut track = Track::new(4_000_000, u64::from(u32::MAX), "\u{1}\"\\".repeat(200));
    track.begin(&mut text);
    for number in 0..4000_u64 {
        let kind = if number % 3 == 0 { Kind::Turn } else { Kind::Handler };
        let large = u64::MAX >> random.u32(1..64);
        // The longest name of a handler that there can be, all of it escaped.
        let name =
            [Kind::Name as u64 | number << 8, u64::MAX >> 7 & 0x0101_0101_0101_0101, 0, 0, 0, 0];
        track.write(&mut text, &name, None);
        track.write(&mut text, &[kind as u64, large, large, large, u64::MAX, number], None);
    }
    let whole = text.bytes.len();
    for page in (4096 - 512..whole).step_by(4096) {
        assert!(matches!(text.bytes[page - 1], b' ' | b'}'), "at {page}");
        assert_eq!(text.bytes[page..page + 2], *b",\n", "at {page}");
    }
    assert!(whole > 100 * 4096);
}

/// SPEC 54
#[test]
fn numbers_and_strings_are_written_as_json_has_them() {
    let written = |write: &dyn Fn(&mut Json<'_>)| {
        let mut bytes = Vec::new();
        write(&mut Json(&mut bytes));
        String::from_utf8(bytes).unwrap()
    };
    for number in [0, 7, 10, 999, 1000, u64::MAX] {
        assert_eq!(written(&|json| _ = json.number(number)), number.to_string());
    }
    assert_eq!(
        written(&|json| _ = json.string("a\"b\\c\n\u{7f}é")),
        "\"a\\\"b\\\\c\\u000a\\u007fé\""
    );
    let long = "é".repeat(200);
    assert_eq!(written(&|json| _ = json.string(&long)), format!("\"{}\"", "é".repeat(128)));
}
