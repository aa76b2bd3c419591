//! argon2id over memory that is kept: taking 19 MiB from the system and giving them back for each password takes a
//! tenth of the time that the hash takes, and lets the process grow.

use std::sync::{Mutex, PoisonError};

use argon2::{
    Algorithm, Argon2, Block, Params, PasswordHash, Version,
    password_hash::phc::{Output, ParamsString, Salt},
};

use super::CryptoError;

/// How long a hash is.
const LENGTH: usize = Params::DEFAULT_OUTPUT_LEN;

/// What a comparison says.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Another password.
    Wrong,
    /// The right one.
    Right,
    /// The right one, and its hash by today's parameters, which are not those that it was hashed with.
    RightRehashed(String),
}

/// Hashes on the caller's thread, by today's parameters.
pub(super) struct Argon {
    today: Params,
    /// As many pieces as there were ever hashes at the same time. What was hashed last is still in them.
    memory: Mutex<Vec<Vec<Block>>>,
}

impl Argon {
    pub(super) fn new(today: Params) -> Self {
        Self { today, memory: Mutex::default() }
    }

    /// A new hash as a PHC string.
    pub(super) fn hash(&self, password: &str, salt: [u8; 16]) -> Result<String, CryptoError> {
        let failed = CryptoError("hashing a password");
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.today.clone());
        let mut out = [0; LENGTH];
        self.compute(&argon2, password, &salt, &mut out)?;
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&self.today).map_err(|_| failed)?,
            salt: Some(Salt::new(&salt).map_err(|_| failed)?),
            hash: Some(Output::new(&out).map_err(|_| failed)?),
        };
        Ok(hash.to_string())
    }

    /// Compares a password with a hash by whatever parameters it says, in constant time.
    pub(super) fn verify(
        &self,
        password: &str,
        stored: &str,
        new_salt: [u8; 16],
    ) -> Result<Verdict, CryptoError> {
        let damaged = CryptoError("reading a stored password hash");
        let parsed = PasswordHash::new(stored).map_err(|_| damaged)?;
        let used = Params::try_from(&parsed).map_err(|_| damaged)?;
        let algorithm = Algorithm::try_from(parsed.algorithm.as_str()).map_err(|_| damaged)?;
        let version =
            parsed.version.map_or(Ok(Version::default()), Version::try_from).map_err(|_| damaged)?;
        let (salt, hash) = parsed.salt.as_ref().zip(parsed.hash.as_ref()).ok_or(damaged)?;
        let argon2 = Argon2::new(algorithm, version, used.clone());
        let mut out = vec![0; hash.len()];
        self.compute(&argon2, password, salt, &mut out)?;
        // Outputs are compared in constant time.
        if Output::new(&out).map_err(|_| damaged)? != *hash {
            return Ok(Verdict::Wrong);
        }
        let is_current = (algorithm, version) == (Algorithm::Argon2id, Version::V0x13)
            && [used.m_cost(), used.t_cost(), used.p_cost()]
                == [self.today.m_cost(), self.today.t_cost(), self.today.p_cost()];
        if is_current {
            Ok(Verdict::Right)
        } else {
            self.hash(password, new_salt).map(Verdict::RightRehashed)
        }
    }

    /// Gives back the memory that is kept.
    pub(super) fn rest(&self) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How much that is, in bytes.
    pub(super) fn kept_bytes(&self) -> usize {
        let kept = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(|piece| size_of_val(piece.as_slice())).sum()
    }

    fn compute(
        &self,
        argon2: &Argon2<'_>,
        password: &str,
        salt: &[u8],
        out: &mut [u8],
    ) -> Result<(), CryptoError> {
        let kept = || self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut blocks = kept().pop().unwrap_or_default();
        blocks.resize(argon2.params().block_count(), Block::new());
        let done = argon2.hash_password_into_with_memory(password.as_bytes(), salt, out, &mut blocks);
        // What a hash by greater parameters took is given back.
        if blocks.len() <= self.today.block_count() {
            kept().push(blocks);
        }
        done.map_err(|_| CryptoError("hashing a password"))
    }
}
