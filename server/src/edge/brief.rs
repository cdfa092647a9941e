//! Texts that carry a client's bytes, cut to a bound: an error that repeats a key of a megabyte
//! does not fit the headers in which gRPC sends it, and breaks the client instead of helping it.

use std::borrow::Cow;

/// Of the text or the details of a refusal. Clients bound all headers together to 8 KiB or more,
/// and a text may travel twice, three bytes for one where it is not ASCII.
pub(crate) const TEXT_BYTES_MAX: usize = 1 << 10;

/// The text, or its beginning and how long it is.
pub(crate) fn cut(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return Cow::Borrowed(text);
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}... ({} bytes)", &text[..end], text.len()))
}

/// As [`cut`], with `?` for what a header cannot hold.
pub(crate) fn printable(text: &str, bytes_max: usize) -> String {
    let fits = |c: char| c.is_ascii_graphic() || c == ' ';
    cut(text, bytes_max).chars().map(|c| if fits(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_say_how_long_they_are() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("longer", 5), "longe... (6 bytes)");
        // No character is cut in two.
        assert_eq!(cut("abcdä", 5), "abcd... (6 bytes)");
        assert_eq!(printable("key \u{e9}\n\0 twice", 100), "key ??? twice");
        assert!(printable(&"\u{e9}".repeat(50_000), TEXT_BYTES_MAX).len() < 600);
    }
}
