//! TensorBoard event files: scalars only, written as `tensorboard` reads them.
//!
//! A file is a row of records, each framed with its length and masked CRC-32C checksums (TFRecord); a record is one
//! `Event` message of `tensorflow/core/util/event.proto`. Four fields of it suffice, so it is encoded by hand.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// An open event file.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Starts a new file in `folder`. With `resumed` at a step, TensorBoard drops what earlier files say from the step
    /// after it on: those steps are taken again.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(folder: &Path, resumed: Option<u64>) -> Result<EventWriter> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let (seconds, nanos) = now();
        let name = format!("events.out.tfevents.{seconds:010}.{host}.{}.{nanos}", std::process::id());
        let path = folder.join(name);
        let file = File::create_new(&path).map_err(Error::io(&path))?;
        let mut writer = EventWriter { path, file };
        // `brain.Event:2` makes TensorBoard heed restarts instead of guessing them.
        writer.event(0, |event| text(event, 3, b"brain.Event:2"))?;
        if let Some(step) = resumed {
            // SessionLog { status: START }.
            writer.event(step + 1, |event| text(event, 7, &[0x08, 1]))?;
        }
        Ok(writer)
    }

    /// Appends the scalars of one step.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn scalars<'a>(&mut self, step: u64, scalars: impl Iterator<Item = (&'a str, f64)>) -> Result<()> {
        let mut summary = vec![];
        for (tag, number) in scalars {
            let mut value = vec![];
            text(&mut value, 1, tag.as_bytes());
            value.push(2 << 3 | 5);
            value.extend((number as f32).to_le_bytes());
            text(&mut summary, 1, &value);
        }
        self.event(step, |event| text(event, 5, &summary))
    }

    fn event(&mut self, step: u64, fill: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let (seconds, nanos) = now();
        let mut event = vec![1 << 3 | 1];
        event.extend((seconds as f64 + f64::from(nanos) * 1e-9).to_le_bytes());
        event.push(2 << 3);
        varint(&mut event, step);
        fill(&mut event);
        let length = (event.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(&event);
        record.extend(masked_crc(&event).to_le_bytes());
        // One write, so that a kill can cut no record but the last.
        self.file.write_all(&record).map_err(Error::io(&self.path))
    }
}

fn now() -> (u64, u32) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs(), since.subsec_nanos())
}

/// A length-delimited protobuf field.
fn text(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    message.push(field << 3 | 2);
    varint(message, bytes.len() as u64);
    message.extend(bytes);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

/// CRC-32C, rotated and shifted as TFRecord wants it.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC with the Castagnoli polynomial, bit-reflected.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc: u32, &byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(byte)) & 0xff) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, appendix B.4, and the check value of CRC-32C.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn records_are_framed_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), Some(299)).unwrap();
        writer.scalars(300, [("loss", 0.5)].into_iter()).unwrap();
        let bytes = std::fs::read(&writer.path).unwrap();
        let mut rest = &bytes[..];
        let mut events = vec![];
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
            let event = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked_crc(event).to_le_bytes());
            // Behind the wall time's tag and its eight bytes.
            events.push(event[9..].to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(events[0][..4], [0x10, 0, 0x1a, 13]);
        // Step 300 = 0b10_0101100; session log of two bytes: status START.
        assert_eq!(events[1], [0x10, 0xac, 2, 0x3a, 2, 8, 1]);
        // Summary of 13 bytes: a value of 11: tag of 4, then 0.5f32 = 0x3f000000.
        let mut expected = vec![0x10, 0xac, 2, 0x2a, 13, 0x0a, 11, 0x0a, 4];
        expected.extend(b"loss");
        expected.extend([0x15, 0, 0, 0, 0x3f]);
        assert_eq!(events[2], expected);
    }
}
