//! Text that people read: of a context, and in places that have room for so many bytes.

use std::borrow::Cow;

/// As much of it as fits, in whole characters.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What people read of a context: its name, or its number where it has none.
pub(crate) fn title(name: &str, id: u64) -> Cow<'_, str> {
    if name.is_empty() { Cow::Owned(format!("context-{id}")) } else { Cow::Borrowed(name) }
}
