//! What a connection carries, with request targets that any sender may write.
//!
//! The HTTP parser behind it refuses raw spaces, control characters and bytes that are not UTF-8 in a target, the URI type
//! refuses `<`, `>` and `"`, and from a raw `#` on it drops everything. Senders send all of these: macros such as `<id>`
//! and `#s2#` that nobody replaced, names with spaces. So a target with such a byte is handed on in a form that the parser
//! takes, and `Target` gives back what was sent.
//!
//! Refuses: to judge a request; whatever is no HTTP is handed on unchanged, and the parser refuses it.
//! Invariant: nothing but the target in a request line is changed, whatever a body holds, so this has to see the same
//! ends of heads and bodies as the parser does. Where it is in doubt, it changes nothing until the connection ends.

use std::{
    borrow::Cow,
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::Uri;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::serve::HEAD_BUFFER;

/// Before the hex digits of a target that the parser does not take. A target that begins like this is written as hex, too,
/// so nobody else can use it.
const HEX: &str = "/.hex/";
/// A longer target is left to the parser, which would not take its hex digits either.
const TARGET_BYTES: usize = 30 * 1024;
const READ_BYTES: usize = 8 * 1024;

/// Path and query of a request as they were sent.
pub(crate) struct Target<'a> {
    pub(crate) path: Cow<'a, str>,
    pub(crate) query: Cow<'a, [u8]>,
}

impl Target<'_> {
    pub(crate) fn of(uri: &Uri) -> Target<'_> {
        if let Some(target) = uri.path().strip_prefix(HEX).and_then(|digits| hex::decode(digits).ok()) {
            let (path, query) = match target.iter().position(|byte| *byte == b'?') {
                Some(at) => (&target[..at], target[at + 1..].to_vec()),
                None => (&target[..], Vec::new()),
            };
            let path = without_authority(path);
            return Target { path: String::from_utf8_lossy(path).into_owned().into(), query: query.into() };
        }
        Target { path: uri.path().into(), query: uri.query().unwrap_or_default().as_bytes().into() }
    }

    /// Bytes of path and query.
    pub(crate) fn len(&self) -> usize {
        self.path.len() + self.query.len() + usize::from(!self.query.is_empty())
    }
}

/// `http://host/path`, as a proxy is asked, means `/path`.
fn without_authority(path: &[u8]) -> &[u8] {
    let scheme = path.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let Some(rest) = path[scheme..].strip_prefix(b"://").filter(|_| scheme > 0) else { return path };
    rest.iter().position(|byte| *byte == b'/').map_or(b"/", |at| &rest[at..])
}

/// The stream of one connection, with its request lines rewritten.
pub(crate) struct Wire<S> {
    stream: S,
    lines: Lines,
    /// Rewritten bytes, and how many of them were taken.
    ready: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl<S> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, lines: Lines::default(), ready: Vec::new(), taken: 0, ended: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self;
        while wire.taken == wire.ready.len() {
            wire.ready.clear();
            wire.taken = 0;
            if wire.ended {
                return Poll::Ready(Ok(()));
            }
            let mut room = [const { MaybeUninit::uninit() }; READ_BYTES];
            let mut read = ReadBuf::uninit(&mut room);
            ready!(Pin::new(&mut wire.stream).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                wire.ended = true;
                wire.lines.end(&mut wire.ready);
            } else {
                wire.lines.pass(read.filled(), &mut wire.ready);
            }
        }
        let rest = &wire.ready[wire.taken..];
        let count = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..count]);
        wire.taken += count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Where in a connection the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    RequestLine,
    Headers(Framing),
    /// So many bytes of a body are to come.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk and the line end after it.
    Chunk(u64),
    Trailers,
    /// Not followed any more.
    Lost,
}

/// How long the body of a request is, as its headers so far say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Framing {
    length: u64,
    chunked: bool,
}

/// Follows requests line by line. Pure.
#[derive(Debug, Default)]
struct Lines {
    at: At,
    /// A line that has not ended yet.
    line: Vec<u8>,
}

impl Lines {
    /// Takes all of `bytes` and adds what the parser is to read of it.
    fn pass(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            bytes = match self.at {
                At::Lost => {
                    out.extend_from_slice(bytes);
                    return;
                }
                At::Body(left) | At::Chunk(left) => self.pass_body(left, bytes, out),
                _ => self.pass_line(bytes, out),
            };
        }
    }

    /// Nothing follows: the parser shall see what there is.
    fn end(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.line);
        self.at = At::Lost;
    }

    fn pass_body<'b>(&mut self, left: u64, bytes: &'b [u8], out: &mut Vec<u8>) -> &'b [u8] {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (body, rest) = bytes.split_at(count);
        out.extend_from_slice(body);
        let left = left - count as u64;
        self.at = match self.at {
            At::Chunk(_) if left == 0 => At::ChunkSize,
            At::Chunk(_) => At::Chunk(left),
            _ if left == 0 => At::RequestLine,
            _ => At::Body(left),
        };
        rest
    }

    fn pass_line<'b>(&mut self, bytes: &'b [u8], out: &mut Vec<u8>) -> &'b [u8] {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            self.line.extend_from_slice(bytes);
            if self.line.len() > HEAD_BUFFER {
                self.end(out);
            }
            return &[];
        };
        let (piece, rest) = bytes.split_at(end + 1);
        if self.line.is_empty() {
            self.at = next(self.at, piece, out);
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(piece);
            self.at = next(self.at, &line, out);
            line.clear();
            self.line = line;
        }
        rest
    }
}

/// Hands a whole line on, and says what follows it.
fn next(at: At, line: &[u8], out: &mut Vec<u8>) -> At {
    let bare = line.strip_suffix(b"\n").unwrap_or(line);
    let bare = bare.strip_suffix(b"\r").unwrap_or(bare);
    if at == At::RequestLine && !bare.is_empty() {
        write_request_line(line, bare, out);
        return At::Headers(Framing::default());
    }
    out.extend_from_slice(line);
    match at {
        At::Headers(framing) if !bare.is_empty() => framing.with(bare).map_or(At::Lost, At::Headers),
        At::Headers(Framing { chunked: true, .. }) => At::ChunkSize,
        At::Headers(Framing { length, .. }) if length > 0 => At::Body(length),
        At::Headers(_) => At::RequestLine,
        At::ChunkSize => match chunk_size(bare) {
            Some(0) => At::Trailers,
            Some(size) => At::Chunk(size.saturating_add(2)),
            None => At::Lost,
        },
        At::Trailers if bare.is_empty() => At::RequestLine,
        at => at,
    }
}

impl Framing {
    /// With one more header. `None` if its length cannot be read. A request with both headers is the last of its connection.
    fn with(mut self, header: &[u8]) -> Option<Framing> {
        let Some(colon) = memchr::memchr(b':', header) else { return Some(self) };
        let (name, value) = (&header[..colon], &header[colon + 1..]);
        if name.eq_ignore_ascii_case(b"content-length") {
            self.length = digits(value.trim_ascii(), 10)?;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.chunked = true;
        }
        Some(self)
    }
}

/// Hex digits, then perhaps an extension.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| matches!(byte, b';' | b' ' | b'\t')).next()?;
    digits(size, 16)
}

fn digits(text: &[u8], radix: u32) -> Option<u64> {
    let all_digits = !text.is_empty() && text.iter().all(|byte| char::from(*byte).is_digit(radix));
    u64::from_str_radix(std::str::from_utf8(text).ok().filter(|_| all_digits)?, radix).ok()
}

/// `METHOD target HTTP/1.1`, where the target is all between the first space and the last.
fn write_request_line(line: &[u8], bare: &[u8], out: &mut Vec<u8>) {
    let parts = memchr::memchr(b' ', bare).zip(memchr::memrchr(b' ', bare));
    let Some((first, last)) = parts.filter(|(first, last)| first < last && bare[last + 1..].starts_with(b"HTTP/"))
    else {
        return out.extend_from_slice(line);
    };
    let target = bare[first + 1..last].trim_ascii_start();
    if target.is_empty() || target.len() > TARGET_BYTES || is_taken(target) {
        return out.extend_from_slice(line);
    }
    out.extend_from_slice(&bare[..=first]);
    out.extend_from_slice(HEX.as_bytes());
    out.extend_from_slice(hex::encode(target).as_bytes());
    out.extend_from_slice(&line[last..]);
}

/// Whether parser and URI take a target as it is. What they might not take costs a detour and nothing else.
fn is_taken(target: &[u8]) -> bool {
    !target.starts_with(HEX.as_bytes())
        && target.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(byte))
}

#[cfg(test)]
mod tests;
