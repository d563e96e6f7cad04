//! Debian's order of version numbers, as the policy manual (5.6.12) defines it: an epoch, then
//! alternating runs of non-digits and digits, in which `~` sorts before everything, even the end.

use std::cmp::Ordering;

/// Compares two versions.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (epoch_a, rest_a) = epoch(a);
    let (epoch_b, rest_b) = epoch(b);
    let (upstream_a, revision_a) = rest_a.rsplit_once('-').unwrap_or((rest_a, "0"));
    let (upstream_b, revision_b) = rest_b.rsplit_once('-').unwrap_or((rest_b, "0"));
    epoch_a
        .cmp(&epoch_b)
        .then_with(|| part(upstream_a, upstream_b))
        .then_with(|| part(revision_a, revision_b))
}

fn epoch(version: &str) -> (u64, &str) {
    match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    }
}

fn part(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (text_a, text_b) = (take(&mut a, false), take(&mut b, false));
        let order = text(text_a, text_b);
        if order != Ordering::Equal {
            return order;
        }
        let (digits_a, digits_b) = (take(&mut a, true), take(&mut b, true));
        let order = number(digits_a, digits_b);
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// Takes the leading run of digits, or of anything else.
fn take<'a>(rest: &mut &'a str, digits: bool) -> &'a str {
    let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
    let (run, left) = rest.split_at(end);
    *rest = left;
    run
}

/// `~` before the end, the end before letters, letters before the rest.
fn weight(byte: Option<u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(b) if b.is_ascii_alphabetic() => i32::from(b),
        Some(b) => i32::from(b) + 256,
    }
}

fn text(a: &str, b: &str) -> Ordering {
    let longest = a.len().max(b.len());
    let at = |text: &str, i: usize| weight(text.as_bytes().get(i).copied());
    (0..longest).map(|i| at(a, i).cmp(&at(b, i))).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
}

/// Numbers of any length: without leading zeros, the longer is the larger.
fn number(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_the_policy_says() {
        for (smaller, larger) in [
            ("5.10.218-1", "5.10.223-1"),
            ("6.1.52-1", "6.1.140-1"),
            ("6.12.57-1~bpo12+1", "6.12.57-1"),
            ("6.12.90-1", "6.12.90-1+deb12u1"),
            ("7.3~rc2-1~exp1", "7.3-1"),
            ("1.0~", "1.0"),
            ("1.0", "1.0a"),
            ("1.0a", "1.0+"),
            ("9", "1:1"),
            ("1.2", "1.10"),
        ] {
            assert_eq!(compare(smaller, larger), Ordering::Less, "{smaller} {larger}");
            assert_eq!(compare(larger, smaller), Ordering::Greater, "{larger} {smaller}");
            assert_eq!(compare(larger, larger), Ordering::Equal);
        }
        assert_eq!(compare("1.02-3", "1.2-3"), Ordering::Equal);
        assert_eq!(compare("1.2", "1.2-0"), Ordering::Equal);
    }
}
