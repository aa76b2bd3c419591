//! Small files that somebody else writes, and may be writing just now.

use std::{io, path::Path};

use secrecy::{ExposeSecret, SecretString};
use tokio::{fs::File, io::AsyncReadExt};

/// The longest file that is read, in bytes.
const LONGEST: u64 = 64 * 1024;

/// What a file of text holds now.
pub(super) async fn read(path: &Path) -> io::Result<SecretString> {
    let mut text = String::new();
    let read = File::open(path).await?.take(LONGEST + 1).read_to_string(&mut text).await;
    let text = SecretString::from(text);
    if read? as u64 > LONGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "is longer than 64 KiB"));
    }
    if text.expose_secret().trim().is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "is empty"));
    }
    Ok(text)
}
