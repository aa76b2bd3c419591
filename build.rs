//! Compiles `proto/` without protoc and leaves the descriptor set for reflection in `OUT_DIR`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

/// Messages with a secret in them: `src/proto.rs` writes their `Debug` by hand.
const SILENT: [&str; 17] = [
    ".tessera.v1.Tokens",
    ".tessera.v1.SignUpRequest",
    ".tessera.v1.LoginRequest",
    ".tessera.v1.RefreshRequest",
    ".tessera.v1.ChangePasswordRequest",
    ".tessera.v1.VerifyTokenRequest",
    ".tessera.v1.CreateUserRequest",
    ".tessera.v1.NewAudienceSecret",
    // A private key that was pasted where the public one belongs.
    ".tessera.v1.CreateAudienceRequest",
    ".tessera.v1.UpdateAudienceRequest",
    ".tessera.v1.CheckForeignTokenRequest",
    ".tessera.v1.IssueServiceTokenRequest",
    ".tessera.v1.ExchangeTokenRequest",
    ".tessera.v1.CreateCredentialResponse",
    ".tessera.v1.RevokeTokenRequest",
    // As with audiences.
    ".tessera.v1.CreateCredentialRequest",
    ".tessera.v1.PrivateKeyJwt",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");

    let mut files: Vec<PathBuf> = fs::read_dir("proto/tessera/v1")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    let descriptors = protox::compile(&files, ["proto"])?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("tessera.bin"), descriptors.encode_to_vec())?;

    let server = env::var_os("CARGO_FEATURE_SERVER").is_some();
    tonic_prost_build::configure()
        .build_server(server)
        .codec_path("crate::proto::ContractCodec")
        .skip_debug(SILENT)
        .compile_fds(descriptors)?;
    if server {
        // The services that the examples protect.
        println!("cargo:rerun-if-changed=examples/hello.proto");
        println!("cargo:rerun-if-changed=examples/mesh/mesh.proto");
        let files = ["examples/hello.proto", "examples/mesh/mesh.proto"];
        tonic_prost_build::compile_fds(protox::compile(files, ["examples"])?)?;
    }
    Ok(())
}
