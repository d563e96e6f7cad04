//! Quantities as a terminal report prints them: three significant digits and a unit.

/// A duration in nanoseconds, as `850 ns`, `1.23 us`, `45.6 ms` or `7.89 s`.
pub fn time(ns: u64) -> String {
    let ns_f = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} us", digits(ns_f / 1e3)),
        1_000_000..1_000_000_000 => format!("{} ms", digits(ns_f / 1e6)),
        _ => format!("{} s", digits(ns_f / 1e9)),
    }
}

/// A signed duration, always with its sign, as `+1.23 ms` or `-450 us`.
pub fn signed_time(ns: i64) -> String {
    format!("{}{}", if ns < 0 { '-' } else { '+' }, time(ns.unsigned_abs()))
}

/// A size in bytes, as `640 B`, `12.5 KiB` or `512 MiB`; whole numbers of a unit have no decimals.
pub fn bytes(n: u64) -> String {
    let scaled = |unit: u64, name: &str| {
        if n.is_multiple_of(unit) {
            format!("{} {name}", n / unit)
        } else {
            format!("{} {name}", digits(n as f64 / unit as f64))
        }
    };
    match n {
        0..1_024 => format!("{n} B"),
        1_024..1_048_576 => scaled(1 << 10, "KiB"),
        1_048_576..1_073_741_824 => scaled(1 << 20, "MiB"),
        1_073_741_824..1_099_511_627_776 => scaled(1 << 30, "GiB"),
        _ => scaled(1 << 40, "TiB"),
    }
}

/// A count with its thousands set apart, as `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A share from 0 to 1, as `99.1 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Three significant digits for numbers from 1 up to 1000 and a little beyond.
fn digits(x: f64) -> String {
    match x {
        x if x < 9.995 => format!("{x:.2}"),
        x if x < 99.95 => format!("{x:.1}"),
        x => format!("{x:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_the_fitting_unit() {
        let cases = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_234, "1.23 us"),
            (45_678, "45.7 us"),
            (999_600, "1000 us"),
            (12_345_678, "12.3 ms"),
            (7_890_000_000, "7.89 s"),
        ];
        for (ns, text) in cases {
            assert_eq!(time(ns), text);
        }
        assert_eq!(signed_time(-4_200_000), "-4.20 ms");
        assert_eq!(signed_time(0), "+0 ns");
    }

    #[test]
    fn sizes_and_counts_are_readable() {
        assert_eq!(bytes(536_870_912), "512 MiB");
        assert_eq!(bytes(1_536), "1.50 KiB");
        assert_eq!(bytes(24 << 30), "24 GiB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!(percent(0.9912), "99.1 %");
    }
}
