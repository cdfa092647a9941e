//! HTTP/2 frames as they pass by, without their contents.

/// The bytes before each frame: length, kind, flags, stream.
pub(super) const HEAD_BYTES: usize = 9;
/// What a client sends before its first frame.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest payload that a peer may send where it was not allowed more; ours never are.
pub(super) const PAYLOAD_BYTES_MAX: usize = 1 << 14;

pub(super) const DATA: u8 = 0x0;
pub(super) const HEADERS: u8 = 0x1;
pub(super) const SETTINGS: u8 = 0x4;
pub(super) const PING: u8 = 0x6;
pub(super) const GOAWAY: u8 = 0x7;
pub(super) const CONTINUATION: u8 = 0x9;

/// Of SETTINGS and PING.
pub(super) const ACK: u8 = 0x1;
/// Of HEADERS and CONTINUATION.
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY: u8 = 0x20;

/// Head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) payload_bytes: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    pub(super) fn parse(bytes: &[u8; HEAD_BYTES]) -> Head {
        let [a, b, c, kind, flags, stream @ ..] = *bytes;
        Head {
            payload_bytes: (usize::from(a) << 16) | (usize::from(b) << 8) | usize::from(c),
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }

    /// The first frame in `bytes`, if its head is complete.
    pub(super) fn peek(bytes: &[u8]) -> Option<Head> {
        bytes.first_chunk().map(Head::parse)
    }

    /// # Panics
    /// The payload has 2^24 bytes or more, which no frame can have.
    pub(super) fn write(self, into: &mut impl bytes::BufMut) {
        let length = u32::try_from(self.payload_bytes).expect("a frame has less than 2^24 bytes");
        let [high, a, b, c] = length.to_be_bytes();
        assert_eq!(high, 0, "a frame has less than 2^24 bytes");
        into.put_slice(&[a, b, c, self.kind, self.flags]);
        into.put_u32(self.stream);
    }
}

/// Follows frames through a stream of bytes that arrives in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; HEAD_BYTES],
    n_head: usize,
    /// Of the frame that is under way.
    payload_left: usize,
}

impl Frames {
    /// Calls `see` for each frame whose head is completed by `bytes`.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut see: impl FnMut(Head)) {
        loop {
            let n_skipped = self.payload_left.min(bytes.len());
            self.payload_left -= n_skipped;
            bytes = &bytes[n_skipped..];
            if bytes.is_empty() {
                return;
            }
            let n_taken = (HEAD_BYTES - self.n_head).min(bytes.len());
            self.head[self.n_head..self.n_head + n_taken].copy_from_slice(&bytes[..n_taken]);
            self.n_head += n_taken;
            bytes = &bytes[n_taken..];
            if self.n_head == HEAD_BYTES {
                let head = Head::parse(&self.head);
                self.n_head = 0;
                self.payload_left = head.payload_bytes;
                see(head);
            }
        }
    }

    /// Whether the last frame is complete.
    pub(super) fn is_between(&self) -> bool {
        self.n_head == 0 && self.payload_left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload_bytes: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        Head { payload_bytes, kind, flags: 0, stream: 3 }.write(&mut bytes);
        bytes.resize(HEAD_BYTES + payload_bytes, 0xaa);
        bytes
    }

    #[test]
    fn frames_are_found_however_their_bytes_are_cut() {
        let all =
            [frame(DATA, 300), frame(PING, 8), frame(SETTINGS, 0), frame(HEADERS, 1)].concat();
        for step in [1, 2, 7, 8, 9, 10, 64, all.len()] {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for piece in all.chunks(step) {
                frames.feed(piece, |head| seen.push((head.kind, head.payload_bytes)));
            }
            assert_eq!(seen, [(DATA, 300), (PING, 8), (SETTINGS, 0), (HEADERS, 1)], "{step}");
            assert!(frames.is_between());
        }
        let mut frames = Frames::default();
        frames.feed(&all[..200], |_| {});
        assert!(!frames.is_between());
    }
}
