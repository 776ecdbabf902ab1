//! From a file or stream to its decompressed bytes.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

/// Decompressed bytes of one input.
pub(crate) type Bytes = Box<dyn Read + Send>;

/// An input whose first bytes were looked at; they are still part of `bytes`.
pub(crate) struct Opened {
    /// The first decompressed bytes, up to [`HEAD`].
    pub head: Vec<u8>,
    /// All decompressed bytes.
    pub bytes: Bytes,
    /// The input was compressed, so a Parquet reader cannot seek in the file itself.
    pub compressed: bool,
}

/// How many bytes are looked at to tell containers apart.
pub(crate) const HEAD: u64 = 256 << 10;

/// How far the first line is followed.
const LONGEST: usize = 4 << 20;

/// Opens a file, through gzip or zstd where its first bytes say so.
pub(crate) fn open(path: &Path) -> io::Result<Opened> {
    from_stream(Box::new(File::open(path)?))
}

/// As [`open`], for a stream.
pub(crate) fn from_stream(mut raw: Bytes) -> io::Result<Opened> {
    let mut magic = Vec::new();
    raw.by_ref().take(4).read_to_end(&mut magic)?;
    let gzip = magic.starts_with(&[0x1f, 0x8b]);
    let zstd = magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let whole = Cursor::new(magic).chain(raw);
    let mut bytes: Bytes = if gzip {
        // Several members in a row are one file, as `cat a.gz b.gz` makes them.
        Box::new(MultiGzDecoder::new(whole))
    } else if zstd {
        Box::new(zstd::stream::read::Decoder::new(whole)?)
    } else {
        Box::new(whole)
    };
    let mut head = Vec::new();
    let mut failed = bytes.by_ref().take(HEAD).read_to_end(&mut head).err();
    // The first line has to be whole to say what it is.
    while failed.is_none() && head.len() >= HEAD as usize && head.len() < LONGEST && !head.contains(&b'\n') {
        let before = head.len();
        failed = bytes.by_ref().take(HEAD).read_to_end(&mut head).err();
        if head.len() == before {
            break;
        }
    }
    // A file cut in its first block still gives what lies before the cut; the error follows in its place.
    let bytes: Bytes = match failed {
        Some(error) => Box::new(Cursor::new(head.clone()).chain(Broken(Some(error)))),
        None => Box::new(Cursor::new(head.clone()).chain(bytes)),
    };
    Ok(Opened { head, bytes, compressed: gzip || zstd })
}

/// Gives one error, then ends.
struct Broken(Option<io::Error>);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}
