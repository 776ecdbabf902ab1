//! Curves out of TensorBoard's event files, as other trainers write them.
//!
//! A file is a row of records (length, checksum of it, message, checksum of it); a message is an `Event`: its step
//! (field 2), and a summary (field 5) of values (field 1) with a tag (field 1) and a number (field 2). Checksums are not
//! looked at: a file that is still written ends anywhere, and what does not parse is left out. Source: TensorFlow's
//! `event.proto`, `summary.proto` and `record_writer.cc`.

use std::collections::BTreeMap;

/// Numbers by tag, over the steps.
pub(crate) fn curves(file: &[u8], curves: &mut BTreeMap<String, Vec<(f64, f64)>>) {
    let mut rest = file;
    while let Some((length, after)) = rest.split_first_chunk::<8>() {
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some(message) = after.get(4..).and_then(|after| after.get(..length)) else { return };
        event(message, curves);
        // What was read is 4 and `length` bytes long, so this does not overflow.
        rest = after.get(4 + length + 4..).unwrap_or_default();
    }
}

fn event(message: &[u8], curves: &mut BTreeMap<String, Vec<(f64, f64)>>) {
    let mut step = 0;
    let mut summaries = Vec::new();
    for (number, field) in Fields(message) {
        match (number, field) {
            (2, Field::Number(value)) => step = value,
            (5, Field::Bytes(bytes)) => summaries.push(bytes),
            _ => {}
        }
    }
    let values = summaries.into_iter().flat_map(Fields).filter(|(number, _)| *number == 1);
    for (_, value) in values {
        let Field::Bytes(value) = value else { continue };
        let (mut tag, mut number) = (None, None);
        for field in Fields(value) {
            match field {
                (1, Field::Bytes(bytes)) => tag = std::str::from_utf8(bytes).ok(),
                (2, Field::Single(value)) => number = Some(value),
                _ => {}
            }
        }
        if let (Some(tag), Some(number)) = (tag, number.filter(|number| number.is_finite())) {
            curves.entry(tag.to_owned()).or_default().push((step as f64, f64::from(number)));
        }
    }
}

/// The fields of a message in the wire format of protocol buffers, as far as they parse.
struct Fields<'a>(&'a [u8]);

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Single(f32),
    Other,
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for place in 0..10 {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self, length: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Field<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => self.bytes(8).map(|_| Field::Other)?,
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.bytes(length)?)
            }
            5 => Field::Single(f32::from_le_bytes(self.bytes(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((key >> 3, field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record around a message, with checksums of zero.
    fn record(message: &[u8]) -> Vec<u8> {
        let mut out = (message.len() as u64).to_le_bytes().to_vec();
        out.extend([0; 4]);
        out.extend(message);
        out.extend([0; 4]);
        out
    }

    #[test]
    fn a_scalar_by_hand() {
        // Event: wall time (field 1, eight bytes), step 300 = 0b10_0101100 (field 2), summary (field 5) of one value
        // (field 1): tag "loss" (field 1), 0.5 = 0x3f000000 (field 2).
        let mut message = vec![0x09];
        message.extend([0; 8]);
        message.extend([0x10, 0xac, 0x02]);
        message.extend([0x2a, 13, 0x0a, 11, 0x0a, 4, b'l', b'o', b's', b's', 0x15, 0, 0, 0, 0x3f]);
        let version = record(b"\x1a\x0dbrain.Event:2");
        let mut file = [version, record(&message)].concat();
        let mut found = BTreeMap::new();
        curves(&file, &mut found);
        assert_eq!(found["loss"], [(300.0, 0.5)]);
        // Cut at any place: no panic, and nothing that was not written.
        while file.pop().is_some() {
            let mut found = BTreeMap::new();
            curves(&file, &mut found);
            assert!(found.len() <= 1);
        }
        let mut found = BTreeMap::new();
        curves(&[0xff; 64], &mut found);
        assert!(found.is_empty());
    }
}
