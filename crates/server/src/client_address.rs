//! Where a request comes from when proxies stand in front: only what trusted proxies say is believed (L-14).
//!
//! Each proxy adds the address that it was called from at the end of a header. The last entry was written by the peer, the one
//! before it by the hop that the last entry names, and so on: the entries are believed from the end for as long as their writer
//! is trusted, and the first address that is not trusted is the caller's. Whatever a caller wrote stands before that.

use gateway::authenticate::contains;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The header that trusted proxies write. The other one is not looked at: a proxy that does not write it passes on what its
/// caller says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressHeader {
    /// `X-Forwarded-For`: addresses with commas between them.
    #[default]
    XForwardedFor,
    /// `Forwarded`, as RFC 7239 has it.
    Forwarded,
}

/// The address that a request comes from. `trusted` are blocks such as `10.0.0.0/8`. Where an entry cannot be read, it is the
/// hop that wrote it.
pub fn of(peer: IpAddr, headers: &HeaderMap, trusted: &[String], header: AddressHeader) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|block| contains(block, address));
    if !is_trusted(peer) {
        return peer;
    }
    let mut from = peer;
    for entry in entries(headers, header).iter().rev() {
        let Some(address) = entry else { break };
        from = *address;
        if !is_trusted(from) {
            break;
        }
    }
    from
}

/// Every hop's entry in the order of the hops, over all lines of the header; `None` for one that is no address.
fn entries(headers: &HeaderMap, header: AddressHeader) -> Vec<Option<IpAddr>> {
    let name = match header {
        AddressHeader::XForwardedFor => X_FORWARDED_FOR,
        AddressHeader::Forwarded => header::FORWARDED,
    };
    let texts = headers.get_all(name).iter().map(HeaderValue::to_str);
    let entries = texts.flat_map(|text| match (text, header) {
        (Err(_), _) => vec![None],
        (Ok(text), AddressHeader::XForwardedFor) => text.split(',').map(address).collect(),
        (Ok(text), AddressHeader::Forwarded) => unquoted_split(text, ',').map(for_address).collect(),
    });
    entries.collect()
}

/// The `for` of one element of `Forwarded`.
fn for_address(element: &str) -> Option<IpAddr> {
    let mut found = None;
    for pair in unquoted_split(element, ';').filter(|pair| !pair.trim().is_empty()) {
        let (name, value) = pair.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("for") && found.replace(value.trim()).is_some() {
            return None;
        }
    }
    let value = found?;
    address(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// An address, with or without a port: `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let found = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    found.ok().map(|address| address.to_canonical())
}

/// The parts between separators that stand outside of quotes.
fn unquoted_split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |c| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match c {
            '"' if !was_escaped => is_quoted = !is_quoted,
            '\\' if is_quoted && !was_escaped => is_escaped = true,
            _ => return c == separator && !is_quoted,
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(peer: &str, lines: &[&str], header: AddressHeader) -> String {
        let trusted = ["10.0.0.0/8".to_owned(), "fd00::/8".to_owned()];
        let name = if header == AddressHeader::Forwarded { "forwarded" } else { "x-forwarded-for" };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, line.parse().unwrap());
        }
        of(peer.parse().unwrap(), &headers, &trusted, header).to_string()
    }

    #[test]
    fn l_14_only_trusted_hops_are_believed() {
        let check = |peer: &str, lines: &[&str], expected: &str| {
            assert_eq!(found(peer, lines, AddressHeader::XForwardedFor), expected, "{peer} {lines:?}");
        };
        // Nobody vouches.
        check("203.0.113.9", &["192.0.2.1"], "203.0.113.9");
        check("203.0.113.9", &["10.0.0.1"], "203.0.113.9");
        check("10.0.0.1", &[], "10.0.0.1");
        // The proxy names its caller, who may have written anything before that.
        check("10.0.0.1", &["203.0.113.9"], "203.0.113.9");
        check("10.0.0.1", &["192.0.2.1, 203.0.113.9"], "203.0.113.9");
        check("10.0.0.1", &["192.0.2.1", "203.0.113.9"], "203.0.113.9");
        check("10.0.0.1", &["10.9.9.9, 203.0.113.9"], "203.0.113.9");
        check("10.0.0.1", &["192.0.2.1, 203.0.113.9, 10.0.0.2"], "203.0.113.9");
        check("::ffff:10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9");
        // Hops all the way: the farthest.
        check("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3");
        // Who wrote what cannot be read is the last that is known.
        check("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1");
        check("10.0.0.1", &["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2");
        check("10.0.0.1", &["203.0.113.9,"], "10.0.0.1");
        check("10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9");
        check("fd00::1", &["2001:db8::1"], "2001:db8::1");
        check("fd00::1", &["[2001:db8::1]:4711"], "2001:db8::1");
    }

    #[test]
    fn l_14_forwarded_is_read_as_its_rfc_has_it() {
        let check = |lines: &[&str], expected: &str| {
            assert_eq!(found("10.0.0.1", lines, AddressHeader::Forwarded), expected, "{lines:?}");
        };
        check(&["for=203.0.113.9;proto=https;by=10.0.0.1"], "203.0.113.9");
        check(&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17");
        check(&["for=192.0.2.1, for=203.0.113.9"], "203.0.113.9");
        check(&["for=203.0.113.9;host=\"a, for=192.0.2.1\""], "203.0.113.9");
        check(&["for=203.0.113.9;host=\"a\\\", for=192.0.2.1\""], "203.0.113.9");
        check(&["for=_hidden"], "10.0.0.1");
        check(&["for=203.0.113.9;for=192.0.2.1"], "10.0.0.1");
        check(&["proto=https"], "10.0.0.1");
    }
}
