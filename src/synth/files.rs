//! A sample shop as files: one NDJSON a source, and the truth beside them.
//!
//! With one source, the file named is the file written. With several, each source's name goes before the ending
//! (`shop.ndjson` becomes `shop.stripe.ndjson`, …). An ending of `.gz` or `.zst` compresses. The truth stands in the named
//! file's name plus `.truth.json`, whatever the sources. Existing files are replaced.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};

use super::Shop;
use crate::base::Source;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Written {
    /// The events' files in the order of the shop's sources, then the truth.
    pub files: Vec<PathBuf>,
    /// Lines, second deliveries too.
    pub events: u64,
    /// Before compression.
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("{path}: cannot be written ({source}); check the folder, its permissions and the space left")]
    Write { path: PathBuf, source: io::Error },
    #[error("no source was named: say which of stripe, klaviyo, storefront to generate")]
    NoSource,
    #[error("{0} cannot be generated: it is one of stripe, klaviyo, storefront")]
    Source(Source),
}

/// Generates `shop` into files named after `out`.
pub fn write_files(shop: Shop, out: &Path) -> Result<Written, WriteError> {
    let mut outputs = Vec::new();
    if shop.sources.is_empty() {
        return Err(WriteError::NoSource);
    }
    for source in &shop.sources {
        if !matches!(source, Source::Stripe | Source::Klaviyo | Source::Storefront) {
            return Err(WriteError::Source(*source));
        }
        let path = if shop.sources.len() == 1 { out.to_owned() } else { with_source(out, *source) };
        outputs.push((*source, Output::create(path)?));
    }
    let mut written = Written { files: Vec::new(), events: 0, bytes: 0 };
    let mut generated = shop.generate();
    for (source, line) in generated.by_ref() {
        if let Some((_, output)) = outputs.iter_mut().find(|(of, _)| *of == source) {
            output.line(&line)?;
            written.events += 1;
            written.bytes += line.len() as u64 + 1;
        }
    }
    for (_, output) in outputs {
        written.files.push(output.finish()?);
    }
    let mut name = out.as_os_str().to_owned();
    name.push(".truth.json");
    let mut truth = Output::create(PathBuf::from(name))?;
    truth.line(format!("{:#}", generated.truth()).as_bytes())?;
    written.files.push(truth.finish()?);
    Ok(written)
}

/// `shop.ndjson.gz` becomes `shop.stripe.ndjson.gz`.
fn with_source(out: &Path, source: Source) -> PathBuf {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".gz").or(name.strip_suffix(".zst")).unwrap_or(&name);
    let at = stem.rfind('.').filter(|at| *at > 0).unwrap_or(stem.len());
    out.with_file_name(format!("{}.{source}{}", &name[..at], &name[at..]))
}

struct Output {
    path: PathBuf,
    writer: Writer,
}

enum Writer {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
    Zstd(zstd::Encoder<'static, BufWriter<File>>),
}

impl Output {
    fn create(path: PathBuf) -> Result<Output, WriteError> {
        let open = || {
            let file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
            Ok(match path.extension().and_then(|e| e.to_str()) {
                Some("gz") => Writer::Gzip(GzEncoder::new(file, Compression::default())),
                Some("zst") => Writer::Zstd(zstd::Encoder::new(file, 3)?),
                _ => Writer::Plain(file),
            })
        };
        match open() {
            Ok(writer) => Ok(Output { path, writer }),
            Err(source) => Err(WriteError::Write { path, source }),
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), WriteError> {
        let writer: &mut dyn Write = match &mut self.writer {
            Writer::Plain(file) => file,
            Writer::Gzip(gzip) => gzip,
            Writer::Zstd(zstd) => zstd,
        };
        let written = writer.write_all(line).and_then(|()| writer.write_all(b"\n"));
        written.map_err(|source| WriteError::Write { path: self.path.clone(), source })
    }

    fn finish(self) -> Result<PathBuf, WriteError> {
        let ended = match self.writer {
            Writer::Plain(file) => Ok(file),
            Writer::Gzip(gzip) => gzip.finish(),
            Writer::Zstd(zstd) => zstd.finish(),
        };
        match ended.and_then(|mut file| file.flush()) {
            Ok(()) => Ok(self.path),
            Err(source) => Err(WriteError::Write { path: self.path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_goes_before_the_ending() {
        for (given, made) in [
            ("a/shop.ndjson", "a/shop.stripe.ndjson"),
            ("shop.ndjson.gz", "shop.stripe.ndjson.gz"),
            ("shop.zst", "shop.stripe.zst"),
            ("shop", "shop.stripe"),
            (".shop", ".shop.stripe"),
        ] {
            assert_eq!(with_source(Path::new(given), Source::Stripe), Path::new(made), "{given}");
        }
    }
}
