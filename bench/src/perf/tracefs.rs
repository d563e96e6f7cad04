//! tracefs: the kernel's description of its own events.
//!
//! Each tracepoint has an id, by which perf opens it, and a binary record whose fields have moved
//! between releases (`mmap_lock`'s `write` lies at 20 in 6.1 and at 24 in 6.16). Both are read from the
//! event's `format` file, never assumed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Unavailable;

/// The places where tracefs is mounted, the usual one first.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// A mounted tracefs.
#[derive(Debug, Clone)]
pub struct Tracefs {
    events: PathBuf,
}

impl Tracefs {
    /// Finds the mounted one.
    ///
    /// # Errors
    /// [`Unavailable::NotMounted`], or [`Unavailable::Unreadable`] for one that this user may not
    /// enter.
    pub fn find() -> Result<Tracefs, Unavailable> {
        let mut unreadable = None;
        for place in PLACES {
            let events = Path::new(place).join("events");
            match fs::metadata(&events) {
                Ok(_) => return Ok(Tracefs { events }),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    unreadable.get_or_insert(Unavailable::Unreadable { path: events, error });
                }
            }
        }
        Err(unreadable.unwrap_or(Unavailable::NotMounted))
    }

    /// A file beside the events, as `kprobe_events`.
    pub fn control(&self, name: &str) -> PathBuf {
        self.events.with_file_name(name)
    }

    /// The description of `system:name`; `needs` says which kernels have it, for the error.
    ///
    /// # Errors
    /// [`Unavailable`] where the kernel has no such event, or this user may not read it.
    pub fn event(
        &self,
        system: &str,
        name: &str,
        needs: &'static str,
    ) -> Result<Format, Unavailable> {
        let path = self.events.join(system).join(name).join("format");
        let event = format!("{system}:{name}");
        match fs::read_to_string(&path) {
            Ok(text) => Format::parse(&text)
                .map_err(|what| Unavailable::Format { event: event.clone(), what })
                .map(|format| Format { event, ..format }),
            Err(e) if e.kind() == ErrorKind::NotFound => Err(Unavailable::NoEvent { event, needs }),
            Err(error) => Err(Unavailable::Unreadable { path, error }),
        }
    }
}

/// One event: its id and the fields of its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// `system:name`.
    pub event: String,
    /// What perf opens it by.
    pub id: u64,
    /// In the order of the file, the common ones included.
    pub fields: Vec<Field>,
}

/// One field of an event's binary record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Bytes from the start of the record.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
    /// Whether the number is signed.
    pub signed: bool,
}

impl Format {
    /// Parses a `format` file.
    ///
    /// # Errors
    /// What is wrong with it, as a phrase.
    pub fn parse(text: &str) -> Result<Format, String> {
        let mut name = None;
        let mut id = None;
        let mut fields = Vec::new();
        for line in text.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("name:") {
                name = Some(rest.trim().to_owned());
            } else if let Some(rest) = line.strip_prefix("ID:") {
                let rest = rest.trim();
                id = Some(rest.parse().map_err(|_| format!("its id is {rest:?}"))?);
            } else if line.starts_with("field:") {
                fields.push(Field::parse(line).ok_or_else(|| format!("the line {line:?}"))?);
            }
        }
        Ok(Format { event: name.ok_or("it has no name")?, id: id.ok_or("it has no id")?, fields })
    }

    /// The field of this name, of `size` bytes.
    ///
    /// # Errors
    /// [`Unavailable::Format`] where there is none, or of another size.
    pub fn field(&self, name: &str, size: usize) -> Result<&Field, Unavailable> {
        let wrong = |what| Unavailable::Format { event: self.event.clone(), what };
        match self.fields.iter().find(|f| f.name == name) {
            None => Err(wrong(format!("it has no field {name}"))),
            Some(f) if f.size != size => {
                Err(wrong(format!("its field {name} has {} bytes, not {size}", f.size)))
            }
            Some(f) => Ok(f),
        }
    }
}

impl Field {
    /// `field:bool write; offset:24; size:1; signed:0;`
    fn parse(line: &str) -> Option<Field> {
        let (mut name, mut offset, mut size, mut signed) = (None, None, None, None);
        for part in line.split(';') {
            let Some((key, value)) = part.trim().split_once(':') else { continue };
            match key {
                "field" => {
                    // The last word of the declaration, without the length of an array.
                    let word = value.rsplit([' ', '\t', '*']).next()?;
                    name = Some(word.split('[').next()?.to_owned());
                }
                "offset" => offset = Some(value.parse().ok()?),
                "size" => size = Some(value.parse().ok()?),
                "signed" => signed = Some(value == "1"),
                _ => {}
            }
        }
        Some(Field { name: name?, offset: offset?, size: size?, signed: signed.unwrap_or(false) })
    }

    /// The field's value in `record`, widened with its sign; `None` if the record is too short or the
    /// field is no number.
    #[inline]
    pub fn value(&self, record: &[u8]) -> Option<u64> {
        let bytes = record.get(self.offset..self.offset + self.size)?;
        let mut word = [0; 8];
        match self.size {
            1..=8 if cfg!(target_endian = "little") => word[..self.size].copy_from_slice(bytes),
            1..=8 => word[8 - self.size..].copy_from_slice(bytes),
            _ => return None,
        }
        let (raw, unused) = (u64::from_ne_bytes(word), 64 - 8 * self.size as u32);
        Some(if self.signed { ((raw << unused) as i64 >> unused) as u64 } else { raw })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "name: mmap_lock_acquire_returned
ID: 512
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:struct mm_struct * mm;\toffset:8;\tsize:8;\tsigned:0;
\tfield:__data_loc char[] memcg_path;\toffset:16;\tsize:4;\tsigned:0;
\tfield:bool write;\toffset:20;\tsize:1;\tsigned:0;
\tfield:bool success;\toffset:21;\tsize:1;\tsigned:0;

print fmt: \"mm=%p memcg_path=%s write=%s success=%s\", REC->mm
";

    #[test]
    fn a_format_file_gives_the_id_and_where_each_field_lies() {
        let format = Format::parse(OLD).unwrap();
        assert_eq!((format.event.as_str(), format.id), ("mmap_lock_acquire_returned", 512));
        assert_eq!(format.field("mm", 8).unwrap().offset, 8);
        assert_eq!(format.field("write", 1).unwrap().offset, 20);
        assert_eq!(format.field("memcg_path", 4).unwrap().offset, 16);
        let shown = |r: Result<&Field, Unavailable>| r.unwrap_err().to_string();
        assert!(shown(format.field("memcg_id", 8)).contains("no field memcg_id"));
        assert!(shown(format.field("mm", 4)).contains("8 bytes, not 4"));
    }

    #[test]
    fn arrays_and_pointers_have_plain_names() {
        let line = "field:char comm[16];\toffset:8;\tsize:16;\tsigned:0;";
        assert_eq!(Field::parse(line).unwrap().name, "comm");
        let line = "field:void *lock_addr;\toffset:8;\tsize:8;\tsigned:0;";
        assert_eq!(Field::parse(line).unwrap().name, "lock_addr");
    }

    #[test]
    fn damaged_files_are_errors_and_not_zeros() {
        assert!(Format::parse("").unwrap_err().contains("name"));
        assert!(Format::parse("name: x\n").unwrap_err().contains("id"));
        assert!(Format::parse("name: x\nID: many\n").unwrap_err().contains("many"));
        let text = "name: x\nID: 1\nformat:\n\tfield:int y;\toffset:;\tsize:4;\tsigned:1;\n";
        assert!(Format::parse(text).unwrap_err().contains("field:int y"));
    }

    #[test]
    fn values_are_widened_with_their_sign_and_checked_against_the_length() {
        let field = |offset, size, signed| Field { name: "x".into(), offset, size, signed };
        let record = (-2i32).to_ne_bytes();
        assert_eq!(field(0, 4, true).value(&record), Some(-2i64 as u64));
        assert_eq!(field(0, 4, false).value(&record), Some(0xffff_fffe));
        assert_eq!(field(1, 4, false).value(&record), None);
        assert_eq!(field(0, 16, false).value(&[0; 16]), None);
    }
}
