use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

/// What the parser is given of a connection that carries these pieces.
fn passed(pieces: &[&[u8]]) -> Vec<u8> {
    let (mut lines, mut out) = (Lines::default(), Vec::new());
    pieces.iter().for_each(|piece| lines.pass(piece, &mut out));
    lines.end(&mut out);
    out
}

fn target(uri: &str) -> (String, Vec<u8>) {
    let uri: Uri = uri.parse().unwrap();
    let target = Target::of(&uri);
    (target.path.into_owned(), target.query.into_owned())
}

/// The target that the service sees when this one was sent.
fn seen(sent: &[u8]) -> (String, Vec<u8>) {
    let out = passed(&[b"GET ", sent, b" HTTP/1.1\r\nhost: x\r\n\r\n"]);
    let line = out.split(|byte| *byte == b'\n').next().unwrap();
    let taken = line.strip_prefix(b"GET ").unwrap().strip_suffix(b" HTTP/1.1\r").unwrap();
    target(std::str::from_utf8(taken).unwrap())
}

#[test]
fn a_target_is_seen_as_it_was_sent_whatever_byte_is_in_it() {
    for byte in (0..=u8::MAX).filter(|byte| *byte != b'\n') {
        let sent = [b"/post-back/t?a=", &[byte][..], b"&b=", &[byte], b"c"].concat();
        assert_eq!(seen(&sent), ("/post-back/t".to_owned(), sent[b"/post-back/t?".len()..].to_vec()), "{byte:#x}");
    }
}

#[test]
fn targets_of_other_forms() {
    for (sent, path, query) in [
        ("/a?b=<c>#d?e", "/a", "b=<c>#d?e"),
        ("/a#b?c", "/a#b", "c"),
        ("/a b", "/a b", ""),
        (" /a?b c", "/a", "b c"),
        ("/a?b c ", "/a", "b c "),
        ("http://host:8080/a?b=<c>", "/a", "b=<c>"),
        ("http://host?b=<c>", "/", "b=<c>"),
        ("http://host/a?b=c", "/a", "b=c"),
        ("/.hex/2f61", "/.hex/2f61", ""),
        ("/.hex/zz", "/.hex/zz", ""),
        ("*", "*", ""),
    ] {
        assert_eq!(seen(sent.as_bytes()), (path.to_owned(), query.as_bytes().to_vec()), "{sent}");
    }
}

#[test]
fn what_is_no_request_is_handed_on_unchanged() {
    for sent in [
        &b"GET /a<b>\r\n\r\n"[..],
        b"<>\r\n\r\n",
        b" /a<b> HTTP/1.1",
        b"GET  HTTP/1.1\r\n\r\n",
        b"\r\n\r\nGET /a?b=c HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\nGET /<> HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nz\r\nGET /<> HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(passed(&[sent]), sent);
    }
    let long = [b"GET /".to_vec(), vec![b'<'; HEAD_BUFFER], b" HTTP/1.1\r\n\r\n".to_vec()].concat();
    assert!(passed(&[&long]) == long);
    let pieces: Vec<&[u8]> = long.chunks(1_000).collect();
    assert!(passed(&pieces) == long);
}

/// A request, and what the parser is to see of it.
fn request() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let body = vec(select(vec!["GET /<> HTTP/1.1\r\n", "\r\n", "\r\n\r\n", "0\r\n\r\n", "a", "\n", "5\r\n"]), 0..6)
        .prop_map(|pieces| pieces.concat().into_bytes());
    let target = prop_oneof![
        Just(b"/a?b=c".to_vec()),
        vec(any::<u8>().prop_filter("a line", |b| *b != b'\n'), 0..20).prop_map(|rest| [b"/", &rest[..]].concat())
    ];
    let ends = select(vec!["\r\n", "\n"]);
    (target, body, 0..4u8, ends, 1..9usize).prop_map(|(target, body, framing, end, chunk)| {
        let written = match is_taken(&target) {
            true => target.clone(),
            false => format!("{HEX}{}", hex::encode(&target)).into_bytes(),
        };
        let rest = match framing {
            0 => end.as_bytes().to_vec(),
            1 => [format!("content-Length: {}{end}X: y{end}{end}", body.len()).as_bytes(), &body].concat(),
            _ => {
                let mut rest = format!("X: y{end}Transfer-encoding: chunked{end}{end}").into_bytes();
                for part in body.chunks(chunk) {
                    rest.extend(format!("{:X};x=\"y\"\r\n", part.len()).bytes());
                    rest.extend(part);
                    rest.extend(b"\r\n");
                }
                rest.extend(if framing == 2 { &b"0\r\n\r\n"[..] } else { b"00\r\nT: GET / HTTP/1.1\r\n\r\n" });
                rest
            }
        };
        let whole = |target: &[u8]| [b"POST ", target, b" HTTP/1.1", end.as_bytes(), &rest].concat();
        (whole(&target), whole(&written))
    })
}

proptest! {
    #[test]
    fn only_targets_are_changed_however_the_bytes_arrive(
        requests in vec(request(), 1..6), cuts in vec(1..40usize, 1..20),
    ) {
        let sent: Vec<u8> = requests.iter().flat_map(|(sent, _)| sent.clone()).collect();
        let wanted: Vec<u8> = requests.into_iter().flat_map(|(_, seen)| seen).collect();
        let (mut pieces, mut rest, mut cut) = (Vec::new(), &sent[..], 0);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(cuts[cut % cuts.len()].min(rest.len()));
            pieces.push(piece);
            (rest, cut) = (after, cut + 1);
        }
        prop_assert_eq!(passed(&pieces), wanted);
    }

    #[test]
    fn any_bytes_come_through(pieces in vec(vec(any::<u8>(), 0..60), 0..20)) {
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        prop_assert!(passed(&pieces).len() >= pieces.concat().len());
    }
}
